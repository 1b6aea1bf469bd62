//! The service `Changes`: its methods are still to come.

use pgbraid_proto::v1::changes_server::Changes;

pub(crate) struct Service;

impl Changes for Service {}
