-- Room for a job's own later versions: one that is put where an old page had something left ends there too. Without it
-- claim and end go to other pages, vacuum frees what the first version took, and the next jobs visit all those pages
-- anew, each of them read and logged whole for one row (docs/decisions/0014-room-in-pages.md).
ALTER TABLE jobs SET (fillfactor = 90);
