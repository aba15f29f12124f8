-- The kind of kernel that a session runs in; '' for sessions from before there were kinds.
ALTER TABLE session ADD COLUMN profile text NOT NULL DEFAULT '';
