-- A claim finds room for the row's next version on the row's own page: a batch lies on a few pages,
-- and all of its rows are rewritten at once. Without the room each row is locked in the log first,
-- and its next version looked up a place elsewhere. Measured with 100-byte arguments, enqueue to
-- history: 1,347 bytes of WAL a job with pages filled to 100 %, 1,295 to 75 %, 1,174 to 50 %, at the
-- same time. Pages that are there fill up as they are.
ALTER TABLE ingestd.jobs SET (fillfactor = 50);
