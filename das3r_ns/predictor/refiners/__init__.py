"""Optional refiners: what an object looks like, where motion alone does not say where it ends. Each is an extra."""
