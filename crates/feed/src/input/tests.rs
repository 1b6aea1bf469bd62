use crate::block::tests::{block, schema};

use super::*;

fn request<'a>(keys: ColumnInput<'a>, columns: Vec<NamedInput<'a>>) -> ColumnarRequest<'a> {
    ColumnarRequest {
        operation: Operation::Upsert,
        key: NamedInput {
            name: "",
            nulls: Bytes::new(),
            input: keys,
        },
        columns,
    }
}

fn named<'a>(name: &'a str, input: ColumnInput<'a>) -> NamedInput<'a> {
    NamedInput {
        name,
        nulls: Bytes::new(),
        input,
    }
}

#[test]
fn fixed_columns_are_taken_over_without_a_copy() {
    let schema = Arc::new(schema());
    let bytes = Bytes::from(vec![1, 0, 0, 0, 2, 0, 0, 0]);
    let block = request(
        ColumnInput::Ints(&[1, 2]),
        vec![named("c1", ColumnInput::Int32s(bytes.clone()))],
    )
    .build(schema)
    .unwrap();
    let ColumnData::Fixed { bytes: taken, .. } = &block.column(0).unwrap().data else {
        panic!("int4 is a fixed-width column");
    };
    assert_eq!(taken.as_ptr(), bytes.as_ptr());
}

#[test]
fn a_value_that_does_not_fit_refuses_its_row_only() {
    let schema = Arc::new(schema());
    let block = request(
        ColumnInput::Ints(&[1, 2, 3]),
        vec![named("c1", ColumnInput::Ints(&[1, 1 << 40, 3]))],
    )
    .build(schema)
    .unwrap();
    assert_eq!(block.refused().len(), 1);
    assert_eq!(block.refused()[0].row, 1);
    assert_eq!(block.refused()[0].reason, "OUT_OF_RANGE");
    assert_eq!(
        block.column(0).unwrap().get(2),
        Some(&3i32.to_le_bytes()[..])
    );
}

#[test]
fn broken_shapes_are_request_errors() {
    let schema = Arc::new(schema());
    let ends = |ends: &[u32]| -> Bytes {
        ends.iter()
            .flat_map(|e| e.to_le_bytes())
            .collect::<Vec<_>>()
            .into()
    };
    let utf8 = |data: &'static str, at: &[u32]| ColumnInput::Utf8 {
        data: Bytes::from_static(data.as_bytes()),
        ends: ends(at),
    };
    let cases = [
        (vec![], ColumnInput::Ints(&[]), "EMPTY_REQUEST"),
        (
            vec![named("c1", ColumnInput::Ints(&[1]))],
            ColumnInput::Ints(&[1, 2]),
            "COLUMN_LENGTH",
        ),
        (
            vec![named(
                "c1",
                ColumnInput::Int32s(Bytes::from_static(&[0; 7])),
            )],
            ColumnInput::Ints(&[1]),
            "BAD_COLUMN",
        ),
        (
            vec![named("note", utf8("ab", &[3]))],
            ColumnInput::Ints(&[1]),
            "BAD_COLUMN",
        ),
        (
            vec![named("note", utf8("ab", &[1]))],
            ColumnInput::Ints(&[1]),
            "BAD_COLUMN",
        ),
        (
            vec![named("note", utf8("ab", &[2, 1]))],
            ColumnInput::Ints(&[1, 2]),
            "BAD_COLUMN",
        ),
        (
            vec![named("c9", ColumnInput::Ints(&[1]))],
            ColumnInput::Ints(&[1]),
            "UNKNOWN_COLUMN",
        ),
    ];
    for (columns, keys, reason) in cases {
        let error = request(keys, columns).build(schema.clone()).unwrap_err();
        assert_eq!(error.reason, reason, "{error}");
    }
}

#[test]
fn text_cut_inside_a_character_refuses_the_row() {
    let schema = Arc::new(schema());
    let ends: Vec<u8> = [1u32, 2].iter().flat_map(|e| e.to_le_bytes()).collect();
    let block = request(
        ColumnInput::Ints(&[1, 2]),
        vec![named(
            "note",
            ColumnInput::Utf8 {
                data: Bytes::from_static("é".as_bytes()),
                ends: ends.into(),
            },
        )],
    )
    .build(schema)
    .unwrap();
    assert_eq!(block.refused().len(), 2);
    assert_eq!(block.refused()[0].reason, "INVALID_UTF8");
}

#[test]
fn helper_blocks_have_their_rows() {
    assert_eq!(block(&Arc::new(schema()), &[1, 2], &[]).rows(), 2);
}
