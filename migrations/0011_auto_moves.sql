-- Moves that routers make by themselves, and what is amiss with moves.

-- In the home only. The placement that routers carry out without being told: that of the last map
-- that was applied by hand, or that a router saw its file change to from the one agreed on before.
alter table pgbraid.mover
    add column agreed    text,
    add column agreed_by text,
    add column agreed_at timestamptz;

alter table pgbraid.move
    -- When a mover first worked on it: moves are claimed all at once.
    add column started_at timestamptz,
    -- Why it does not get on, while it does not.
    add column trouble    text;
