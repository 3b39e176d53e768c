"""Model: splatfacto with staticness. Never imports the predictor or the dataparser."""
