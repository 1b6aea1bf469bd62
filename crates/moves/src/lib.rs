//! Moves tables between instances while rows go on being written.
//!
//! A *plan* ([`Plan`]) is the difference between the map's wish and what the instances own. Carrying
//! it out ([`Job::apply`]) looks at source and target of each move and does whatever is next
//! ([`next_step`]), so that it does not matter when a mover was killed: the state of a move is what
//! source, target and home say, and nothing else.
//!
//! Who owns a table is decided in one place, the source's row of ownership: `moving_out` becomes
//! either `owned` again or `moved`, never both. The target takes the table only after `moved`.

mod apply;
mod carry;
mod clean;
mod cutover;
mod error;
mod estimate;
mod event;
mod health;
mod lag;
mod lease;
mod plan;
mod preflight;
mod settings;
mod step;
mod survey;
mod unattended;
mod verify;

pub use apply::{Abort, Applied, Job};
pub use clean::{Cleaned, clean};
pub use cutover::Pause;
pub use error::MoveError;
pub use estimate::Pace;
pub use event::{Event, Happening, Progress};
pub use lease::{Lease, holder};
pub use plan::{InstanceChange, Level, Plan, PlanFinding, PlannedMove, Wish, draw};
pub use settings::{MoveSettings, Site, Sites};
pub use step::{Goal, Step, next_step};
pub use survey::{Survey, survey};
/// Asks a [`Job`] to stop at the next safe point, when it is cancelled.
pub use tokio_util::sync::CancellationToken as Stop;
pub use verify::{Verified, verify};
