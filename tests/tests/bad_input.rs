//! Requests of a wrong shape: each gets a clear answer, and its neighbours are written.

use bytes::Bytes;
use pgbraid_proto::v1::{self, column::Values, write_request::Form};
use pgbraid_tests::{
    Refusal, Writer,
    rows::{self, column, int, int32s, int64s, text, utf8},
    wide::{count, start},
};

fn one_row(columns: &[&str], values: Vec<v1::Value>) -> v1::WriteRequest {
    rows::rows("wide", columns, [(int(1), values)])
}

fn with_columns(columns: Vec<v1::Column>) -> v1::WriteRequest {
    rows::columnar("wide", int64s("", &[1, 2]), columns)
}

fn nulls(mut column: v1::Column, bits: &[u8]) -> v1::Column {
    column.nulls = Bytes::copy_from_slice(bits);
    column
}

fn operation(mut request: v1::WriteRequest, operation: i32) -> v1::WriteRequest {
    match request.form.as_mut() {
        Some(Form::Rows(batch)) => batch.rows[0].operation = operation,
        Some(Form::Columnar(columnar)) => columnar.operation = operation,
        None => {}
    }
    request
}

fn timeout(seconds: i64) -> v1::WriteRequest {
    let mut request = one_row(&["c1"], vec![int(1)]);
    request.timeout = Some(std::time::Duration::ZERO.try_into().expect("a time"));
    if let Some(timeout) = &mut request.timeout {
        timeout.seconds = seconds;
    }
    request
}

/// Request, reason, field, part of the description.
fn bad_requests() -> Vec<(v1::WriteRequest, &'static str, &'static str, &'static str)> {
    let named = |name: &str| v1::WriteRequest {
        feed: name.into(),
        ..one_row(&["c1"], vec![int(1)])
    };
    let no_key = v1::WriteRequest {
        form: Some(Form::Columnar(v1::ColumnarRows::default())),
        ..named("wide")
    };
    let no_form = v1::WriteRequest {
        form: None,
        ..named("wide")
    };
    let no_values = v1::Column {
        values: None,
        ..int32s("c1", &[])
    };
    let ones = |name| int32s(name, &[1, 1]);
    let bytes = |bytes: &'static [u8]| column("c1", Values::Int32s(Bytes::from_static(bytes)));
    let large = "x".repeat(70_000);
    vec![
        (named("wido"), "UNKNOWN_FEED", "feed", "wide"),
        (named(""), "UNKNOWN_FEED", "feed", "wide"),
        (no_form, "EMPTY_REQUEST", "form", "columnar"),
        (
            rows::rows("wide", &["c1"], []),
            "EMPTY_REQUEST",
            "rows.rows",
            "at least one",
        ),
        (no_key, "NO_KEY", "columnar.key", "every row needs one"),
        (
            rows::columnar("wide", int64s("", &[]), vec![]),
            "EMPTY_REQUEST",
            "columnar.key",
            "no rows",
        ),
        (
            one_row(&["small", "c11"], vec![]),
            "UNKNOWN_COLUMN",
            "rows.columns[1]",
            "\"c1\"",
        ),
        (
            with_columns(vec![ones("prize")]),
            "UNKNOWN_COLUMN",
            "columnar.columns[0]",
            "\"price\"",
        ),
        (
            one_row(&["C1"], vec![]),
            "UNKNOWN_COLUMN",
            "rows.columns[0]",
            "\"c1\"",
        ),
        (
            one_row(&["c1", "c1"], vec![]),
            "REPEATED_COLUMN",
            "rows.columns[1]",
            "twice",
        ),
        (
            with_columns(vec![ones("c1"), ones("c1")]),
            "REPEATED_COLUMN",
            "columnar.columns[1]",
            "twice",
        ),
        (
            one_row(&["Key id"], vec![]),
            "KEY_AS_COLUMN",
            "rows.columns[0]",
            "is the key",
        ),
        (
            rows::columnar("wide", int64s("id", &[1]), vec![]),
            "WRONG_KEY_COLUMN",
            "columnar.key.name",
            "\"Key id\"",
        ),
        (
            one_row(&["twice"], vec![int(1)]),
            "GENERATED_COLUMN",
            "rows.columns[0]",
            "generated",
        ),
        (
            with_columns(vec![int32s("c1", &[1])]),
            "COLUMN_LENGTH",
            "columnar.columns[0]",
            "2 keys",
        ),
        (
            with_columns(vec![bytes(b"12345")]),
            "BAD_COLUMN",
            "columnar.columns[0]",
            "5 bytes",
        ),
        (
            with_columns(vec![nulls(ones("c1"), &[0, 0])]),
            "BAD_COLUMN",
            "columnar.columns[0].nulls",
            "need 1",
        ),
        (
            with_columns(vec![column("note", utf8(b"abc", &[2, 1]))]),
            "BAD_COLUMN",
            "columnar.columns[0]",
            "ascend",
        ),
        (
            with_columns(vec![column("note", utf8(b"abc", &[1, 9]))]),
            "BAD_COLUMN",
            "columnar.columns[0]",
            "3 bytes",
        ),
        (
            with_columns(vec![column("note", utf8(b"abc", &[1, 2]))]),
            "BAD_COLUMN",
            "columnar.columns[0]",
            "last",
        ),
        (
            with_columns(vec![no_values]),
            "NO_VALUES",
            "columnar.columns[0]",
            "\"c1\"",
        ),
        (
            one_row(&["c1"], vec![int(1), int(2)]),
            "TOO_MANY_VALUES",
            "rows.rows[0].values",
            "2 values",
        ),
        (
            operation(one_row(&["c1"], vec![int(1)]), 1),
            "COLUMNS_IN_DELETE",
            "rows.rows[0].values",
            "key only",
        ),
        (
            operation(with_columns(vec![ones("c1")]), 1),
            "COLUMNS_IN_DELETE",
            "columnar.columns",
            "keys only",
        ),
        (
            operation(one_row(&[], vec![]), 7),
            "UNKNOWN_OPERATION",
            "rows.rows[0].operation",
            "7",
        ),
        (
            operation(with_columns(vec![]), -1),
            "UNKNOWN_OPERATION",
            "columnar.operation",
            "-1",
        ),
        (
            rows::columnar("wide", int64s("", &[0; 201]), vec![]),
            "TOO_MANY_ROWS",
            "columnar.key",
            "200",
        ),
        (
            rows::rows("wide", &[], vec![(int(1), vec![]); 201]),
            "TOO_MANY_ROWS",
            "rows.rows",
            "max_request_rows",
        ),
        (
            one_row(&["note"], vec![text(large)]),
            "REQUEST_TOO_LARGE",
            "request",
            "max_request_bytes",
        ),
        (timeout(0), "BAD_TIMEOUT", "timeout", "zero"),
        (timeout(-1), "BAD_TIMEOUT", "timeout", "zero"),
    ]
}

#[tokio::test]
async fn requests_of_wrong_shape_are_refused_with_their_field() {
    let (cluster, router) = start().await;
    let mut writer = Writer::open(&router).await;
    let mut calls = rows::ingest(&router).await;
    for (number, (request, reason, field, part)) in bad_requests().into_iter().enumerate() {
        let case = format!("case {number}");
        let status = calls.write(request.clone()).await.expect_err(&case);
        Refusal::from(&status).assert_bad_field(&case, reason, field, part);
        // On a stream the others go on: one before it, one after it.
        let key = 1000 + 2 * number as i64;
        let good = |key| rows::rows("wide", &["c1"], [(int(key), vec![int(7)])]);
        for request in [good(key), request, good(key + 1)] {
            writer.send(request).await.expect("the stream is open");
        }
        let mut refused = 0;
        while writer.in_flight() > 0 {
            let (_, answer) = writer.answer().await.expect("the stream goes on");
            match &answer.status {
                None => assert_eq!(
                    (answer.rows_committed, &answer.refused[..]),
                    (1, &[][..]),
                    "{case}"
                ),
                Some(status) => {
                    refused += 1;
                    Refusal::from(status).assert_bad_field(&case, reason, field, part);
                }
            }
        }
        assert_eq!(refused, 1, "{case}");
    }
    let good = 2 * bad_requests().len() as i64;
    assert_eq!(count(&cluster, "c1 = 7").await, good);
    assert_eq!(
        count(&cluster, "true").await,
        good,
        "nothing of the bad requests is there"
    );
}

/// A message beyond the limit of gRPC itself ends the stream, but not what was sent before it.
#[tokio::test]
async fn a_message_that_is_too_large_harms_nothing_before_it() {
    let (cluster, router) = start().await;
    let mut writer = Writer::open(&router).await;
    for key in 0..20 {
        let request = rows::rows("wide", &["c1"], [(int(key), vec![int(7)])]);
        writer.send(request).await.expect("the stream is open");
    }
    let large = one_row(&["note"], vec![text("x".repeat(200_000))]);
    let call = rows::ingest(&router).await.write(large.clone()).await;
    let status = call.expect_err("it is too large");
    assert!(
        status.message().contains("131072"),
        "names the limit: {status:?}"
    );
    writer.send(large).await.expect("the stream is open");
    let mut answered = 0;
    let status = loop {
        match writer.answer().await {
            Ok((_, answer)) => answered += answer.rows_committed,
            Err(status) => break status,
        }
    };
    assert!(
        status.message().contains("131072"),
        "names the limit: {status:?}"
    );
    assert_eq!(answered, 20, "what was taken before is answered");
    assert_eq!(count(&cluster, "c1 = 7").await, 20);
}

/// Requests of one row that arrive together are looked at each.
#[tokio::test]
async fn a_request_that_is_too_large_is_refused_behind_others_like_it() {
    let (cluster, router) = start().await;
    let mut writer = Writer::open(&router).await;
    let note = |key, len| {
        let row = (int(key), vec![text("x".repeat(len))]);
        rows::rows("wide", &["note"], [row])
    };
    for turn in 0..20 {
        for key in 0..8 {
            writer.send(note(key, 9)).await.expect("it is open");
        }
        let large = writer.send(note(9, 80_000)).await.expect("it is open");
        while writer.in_flight() > 0 {
            let (request, answer) = writer.answer().await.expect("the stream goes on");
            let is_refused = answer.status.is_some();
            assert_eq!(
                is_refused,
                request.sequence == large,
                "turn {turn}: {answer:?}"
            );
        }
    }
    assert_eq!(count(&cluster, "true").await, 8);
}
