-- What columns of sources hold since files of FTP servers are sources; nothing else changes.
COMMENT ON COLUMN catalog.sources.kind IS 'What location is: path, a file; url, http, https, ftp or ftps; s3, an object; folder, a folder to be watched.';
COMMENT ON COLUMN catalog.sources.seen_stamp IS 'Of path: size in bytes, times of the last change of content and of inode in nanoseconds, and inode of the version seen last. Of ftp and ftps: SIZE and MDTM.';
