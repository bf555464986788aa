-- Two imports at once would compare with the same old state: the second one waits for the first.
-- Terms in messages are written as in the files. 64 MB: a hundred thousand terms sort in memory.
SELECT set_config('intervalstyle', 'iso_8601', true), set_config('work_mem', '64MB', true),
       prepaid.take_lock('import');
