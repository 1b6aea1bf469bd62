-- The orders of the demo: one wide table, written by eight business systems, each its own columns.
create table orders (
  order_id             int8 primary key,
  status               text,            -- order_desk

  -- storefront
  customer             text,
  region               text,
  ordered_at           timestamptz,
  estimated_at         timestamptz,

  -- catalog
  category             text,
  items                int4,
  item_total           numeric(12,2),

  -- payments
  payment_type         text,
  payment_installments int4,
  paid_total           numeric(12,2),
  paid_at              timestamptz,

  -- risk
  risk_score           int4,
  risk_checked_at      timestamptz,

  -- warehouse
  warehouse            text,
  packed_at            timestamptz,

  -- carrier
  carrier              text,
  tracking_code        text,
  shipped_at           timestamptz,
  delivered_at         timestamptz,

  -- reviews
  review_score         int4,
  review_text          text,

  -- order_desk
  canceled_at          timestamptz,
  attrs                jsonb
) partition by hash (order_id);
