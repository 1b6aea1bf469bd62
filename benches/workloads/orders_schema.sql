-- Orders as users have them, of which a write changes c1 and c2. The defaults fill the rest.
create table feed (id int8 primary key, c1 int, c2 int, quantity int default 3,
                   price numeric(12, 2) default 19.90, total numeric default 59.70,
                   status text default 'paid', country text default 'DE',
                   customer int8 default 4711, paid bool default true,
                   created timestamptz default now(), weight float8 default 1.5,
                   note text, shipped date) partition by hash (id);
