-- The articles' table as a feed.
create table feed (id int8 primary key, c1 int, c2 int, c3 int, c4 int, c5 int, c6 int,
                   c7 int, c8 int, c9 int, c10 int, c11 int, c12 int) partition by hash (id);
