create table orders (
    order_id   int8 primary key,
    status     text,
    paid_total numeric(12, 2),
    attrs      jsonb
) partition by hash (order_id);
