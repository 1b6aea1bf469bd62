use super::*;

fn details() -> ErrorDetails {
    let mut details = ErrorDetails::new();
    let metadata = HashMap::from([("instance".to_owned(), "db3".to_owned())]);
    details
        .set_error_info("QUEUE_FULL", "pgbraid", metadata)
        .set_retry_info(Some(Duration::from_millis(250)))
        .add_bad_request_violation("columnar.columns[2]", "no column x");
    details
}

#[test]
fn details_are_decoded() {
    let status = Status::with_error_details(Code::ResourceExhausted, "full", details());
    let error = ClientError::from(status);
    assert!(error.is_retriable());
    let ClientError::Api(api) = &error else {
        panic!("{error:?}")
    };
    assert_eq!(api.reason, "QUEUE_FULL");
    assert_eq!(api.metadata["instance"], "db3");
    assert_eq!(api.retry_delay, Some(Duration::from_millis(250)));
    assert_eq!(error.to_string(), "full\ncolumnar.columns[2]: no column x");
}

#[test]
fn details_of_a_status_in_a_message_are_decoded() {
    use prost::Message;
    let status = Status::with_error_details(Code::InvalidArgument, "bad", details());
    let inner = v1::Status::decode(status.details()).unwrap();
    let api = ApiError::from_message(inner);
    assert_eq!(
        (api.code, api.reason.as_str()),
        (Code::InvalidArgument, "QUEUE_FULL")
    );
    assert!(!ClientError::Api(Box::new(api)).is_retriable());
}

#[test]
fn a_status_without_details_is_fine() {
    let error = ClientError::from(Status::unavailable("gone"));
    assert!(error.is_retriable());
    assert_eq!(error.to_string(), "gone");
}
