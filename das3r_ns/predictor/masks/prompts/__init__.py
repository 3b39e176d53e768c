"""Objects that the user names or points at: words, boxes and clicks in, outlines out (`base`), and what becomes of them
over a whole clip (`objects`). What answers a prompt is an extra, and imported when it is built (`build`)."""
