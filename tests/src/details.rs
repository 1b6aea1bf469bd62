//! What a refusal says to machines.

use pgbraid_proto::v1;
use prost::Message;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// A status with its google.rpc details taken apart.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The code.
    pub code: Code,
    /// The message for people.
    pub message: String,
    /// Of ErrorInfo; empty if there is none.
    pub reason: String,
    /// Of ErrorInfo.
    pub domain: String,
    /// Field and description of each violation of BadRequest.
    pub violations: Vec<(String, String)>,
    /// Whether RetryInfo is there.
    pub retry: bool,
}

impl From<&Status> for Refusal {
    fn from(status: &Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info();
        Self {
            code: status.code(),
            message: status.message().to_owned(),
            reason: info.map(|info| info.reason.clone()).unwrap_or_default(),
            domain: info.map(|info| info.domain.clone()).unwrap_or_default(),
            violations: details
                .bad_request()
                .map(|bad| bad.field_violations.as_slice())
                .unwrap_or_default()
                .iter()
                .map(|one| (one.field.clone(), one.description.clone()))
                .collect(),
            retry: details.retry_info().is_some(),
        }
    }
}

impl From<&v1::Status> for Refusal {
    /// Of a status inside a stream's answer.
    fn from(status: &v1::Status) -> Self {
        let code = Code::from_i32(status.code);
        let details = status.encode_to_vec().into();
        Self::from(&Status::with_details(code, status.message.clone(), details))
    }
}

impl Refusal {
    /// Checks that this is a request that must never be sent again, about that field.
    ///
    /// # Panics
    /// If it is not.
    pub fn assert_bad_field(&self, case: &str, reason: &str, field: &str, part: &str) {
        assert_eq!(self.code, Code::InvalidArgument, "{case}: {self:?}");
        assert_eq!(self.reason, reason, "{case}: {self:?}");
        assert_eq!(self.domain, "pgbraid", "{case}: {self:?}");
        assert!(!self.retry, "{case}: must not be sent again: {self:?}");
        let found = self
            .violations
            .iter()
            .any(|(name, text)| name == field && text.contains(part));
        assert!(
            found,
            "{case}: no violation of {field:?} with {part:?}: {self:?}"
        );
    }
}
