-- Sessions of people who run the shop.
ALTER TABLE session DROP CONSTRAINT session_role_check;
ALTER TABLE session ADD CONSTRAINT session_role_check CHECK (role IN ('agent', 'analyst', 'operator'));
