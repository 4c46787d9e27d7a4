-- What was installed; funnelvec.version() and the next run of the installer read the newest row.
insert into funnelvec._install (version, sha256, applied_at)
values ('@version@', '@sha256@', clock_timestamp());
