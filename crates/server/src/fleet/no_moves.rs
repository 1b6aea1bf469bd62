//! Schema changes and moves of tables keep out of each other's way.
//!
//! A copy takes no column that its target lacks, and rows that the user's SQL writes would be written
//! on both sides. So steps are applied under the lease of movers, while no move is under way. What
//! has no step to apply, or only on instances that are new, asks for nothing.

use pgbraid_instance::SchemaFile;
use pgbraid_moves::{Lease, MoveError, holder};

use super::{Fleet, FleetError};

/// Moves that are named.
const NAMED: usize = 3;

impl Fleet {
    /// Keeps movers out until the lease is given back, if there is anything to apply.
    ///
    /// # Errors
    /// [`FleetError::Moves`] if tables are being moved.
    pub(super) async fn keep_movers_out(
        &self,
        files: &[SchemaFile],
    ) -> Result<Option<Lease>, FleetError> {
        let home = &self.instances[&self.map.home];
        let of_home = |error| FleetError::of(home.name(), error);
        let at_home = home.pending_steps(files).await.map_err(of_home)?;
        if !at_home.movers {
            return Ok(None);
        }
        let mut pending = at_home.steps;
        for instance in self.instances.values() {
            // One that does not answer is told of when it is migrated.
            if let Ok(there) = instance.pending_steps(files).await
                && !there.fresh
            {
                pending += there.steps;
            }
        }
        if pending == 0 {
            return Ok(None);
        }
        let refused = |error: MoveError| match error {
            MoveError::Busy { holder, .. } => FleetError::Moves(format!(
                "schema changes wait until nobody moves tables: {holder} does; see `pgbraid map \
                 status`, and run this again once it is done"
            )),
            MoveError::Instance { instance, source } => FleetError::of(instance, source),
            other => FleetError::Moves(other.to_string()),
        };
        let by = holder("pgbraid migrate");
        let lease = Lease::take(home, &by, self.config.moves.lease)
            .await
            .map_err(refused)?;
        let open = match home.open_moves().await {
            Ok(open) if open.is_empty() => return Ok(Some(lease)),
            other => other,
        };
        lease.release().await;
        let open = open.map_err(of_home)?;
        let named: Vec<&str> = open.iter().take(NAMED).map(String::as_str).collect();
        let more = open.len().saturating_sub(NAMED);
        Err(FleetError::Moves(format!(
            "schema changes wait until no table is on its way: {}{}; finish that with `pgbraid map \
             apply`, or undo it with `pgbraid map abort`",
            named.join(", "),
            match more {
                0 => String::new(),
                more => format!(" and {more} more"),
            }
        )))
    }
}
