use crate::block::tests::schema;

use super::*;

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| name.to_string()).collect()
}

#[test]
fn absent_is_not_null() {
    let schema = Arc::new(schema());
    let mut builder = RowsBuilder::new(schema, &names(&["c1", "note"]), 4).unwrap();
    let mut push = |key, values: &[Scalar]| {
        builder
            .push(Operation::Upsert, Scalar::Int(key), values.iter().copied())
            .unwrap();
    };
    push(1, &[Scalar::Int(5), Scalar::Text("five")]);
    push(2, &[Scalar::Absent, Scalar::Null]);
    push(3, &[Scalar::Int(6)]);
    push(4, &[Scalar::Text("12x"), Scalar::Text("bad")]);
    let block = builder.finish().unwrap();
    assert!(block.mask(0).iter().eq([0, 2]));
    assert!(block.mask(1).iter().eq([2]));
    assert!(block.mask(2).iter().eq([0]));
    assert_eq!(block.column(2).unwrap().get(1), None);
    assert_eq!(block.column(2).unwrap().get(0), Some(&b"five"[..]));
    assert_eq!(block.refused().len(), 1);
    assert_eq!(block.refused()[0].row, 3);
    assert_eq!(block.refused()[0].column, "c1");
}

#[test]
fn unknown_columns_are_refused_with_a_hint_or_kept() {
    let mut with_overflow = schema();
    let error = RowsBuilder::new(Arc::new(with_overflow.clone()), &names(&["nte"]), 1)
        .err()
        .unwrap();
    assert_eq!(error.reason, "UNKNOWN_COLUMN");
    assert!(error.message.contains("did you mean \"note\"?"), "{error}");
    with_overflow.columns[2].ty = ColumnType::Jsonb;
    with_overflow.overflow = Some(2);
    let mut builder = RowsBuilder::new(
        Arc::new(with_overflow),
        &names(&["c1", "colour", "size"]),
        2,
    )
    .unwrap();
    for values in [
        vec![Scalar::Int(1), Scalar::Text("red"), Scalar::Double(1.5)],
        vec![Scalar::Int(1)],
    ] {
        builder
            .push(Operation::Upsert, Scalar::Int(1), values.into_iter())
            .unwrap();
    }
    let block = builder.finish().unwrap();
    assert!(block.mask(0).iter().eq([0, 2]));
    assert!(block.mask(1).iter().eq([0]));
    assert_eq!(
        block.column(2).unwrap().get(0).unwrap(),
        b"\x01{\"colour\":\"red\",\"size\":1.5}"
    );
}

#[test]
fn shapes_that_make_no_sense_are_request_errors() {
    let schema = Arc::new(schema());
    let reason = |result: Result<RowsBuilder, RequestError>| result.err().unwrap().reason;
    assert_eq!(
        reason(RowsBuilder::new(schema.clone(), &[""; 0], 0)),
        "EMPTY_REQUEST"
    );
    assert_eq!(
        reason(RowsBuilder::new(schema.clone(), &names(&["c1", "c1"]), 1)),
        "REPEATED_COLUMN"
    );
    assert_eq!(
        reason(RowsBuilder::new(schema.clone(), &names(&["id"]), 1)),
        "KEY_AS_COLUMN"
    );
    let mut builder = RowsBuilder::new(schema, &names(&["c1"]), 2).unwrap();
    let two = [Scalar::Int(1), Scalar::Int(2)];
    let error = builder
        .push(Operation::Upsert, Scalar::Int(1), two.into_iter())
        .unwrap_err();
    assert_eq!(error.reason, "TOO_MANY_VALUES");
    let error = builder
        .push(
            Operation::Delete,
            Scalar::Int(1),
            [Scalar::Int(1)].into_iter(),
        )
        .unwrap_err();
    assert_eq!(error.reason, "COLUMNS_IN_DELETE");
}
