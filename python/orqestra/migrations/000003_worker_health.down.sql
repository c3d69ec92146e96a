ALTER TABLE sessions DROP COLUMN health;
