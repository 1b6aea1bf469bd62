//! All SQL to one PostgreSQL: connections, catalog, migrations, upserts, ownership, rules, the
//! outbox and LISTEN. The only crate that knows SQL text, besides the triggers of `rules`.

pub mod catalog;
mod changes;
mod connect;
mod cooldowns;
pub mod error;
mod group_work;
mod groups;
pub mod identity;
mod listen;
mod migrate;
mod moves;
mod outbox;
mod ownership;
mod pool;
mod probe;
mod rows;
mod rule_triggers;
mod rules;
mod sql;
mod statement_text;
mod statements;
mod stored;
mod tls;
mod write;

pub use changes::{CHANGE_CHANNEL, ChangeFeed, ChangeNote, ChangeNoteKind, ChangedRows};
pub use connect::{Connector, ConnectorSettings, SslMode};
pub use cooldowns::Cooldown;
pub use error::{DbError, DbErrorKind};
pub use group_work::{
    AttemptRow, ClaimedAlert, DeadLetterRow, GroupClaim, GroupStanding, NO_GROUP, SettleCall,
    SettleHow,
};
pub use groups::{GROUPS_CHANGED, GroupChange, GroupRow, GroupSet, GroupSpec, HeadAt, Heads};
pub use identity::{ClusterIdentity, ServerIdentity};
pub use listen::{ListenConnection, Notice};
pub use migrate::{MIGRATIONS, MigrationReport, PendingSteps, SchemaFile};
pub use moves::{
    Agreed, ColumnShape, Contents, Fenced, FrozenTable, Leftover, Move, MoveFacts, MoveOutcome,
    MoveRecord, MoverState, MovingRow, SourceSeen, SourceSide, TableSize, TakenTerm, TargetSeen,
    TargetSide, Workers,
};
pub use outbox::{
    AlertRow, DroppedPart, OutboxDone, OutboxPage, OutboxQuery, OutboxSnapshot, OutboxStart,
    OutboxState, OutboxTotals, RetentionPolicy,
};
pub use ownership::{OWNERSHIP_CHANNEL, OwnedTable, TableToMake};
pub use pool::{Instance, PoolStats, Session};
pub use probe::Probe;
pub use rows::StoredRow;
pub use rules::{RuleChange, RuleEdit, RuleSet, Schemas, StoredRuleRow};
pub use sql::{quote_ident, quote_literal};
pub use write::{LostBackend, WriteTarget};
