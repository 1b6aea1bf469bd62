//! From bytes off the wire to blocks: 1000 rows of a key and two ints.

mod common;

use std::hint::black_box;

use bytes::Bytes;
use criterion::Criterion;
use pgbraid_micro::{
    feed,
    message::{self, Form},
    random::SplitMix,
};
use pgbraid_proto::v1::{self, column::Values, write_request};
use pgbraid_server::hot;
use prost::Message;

const ROWS: usize = 1000;

/// Columns as packed varints.
fn packed() -> Bytes {
    let mut random = SplitMix::new(3);
    let ints = |values: Vec<i64>| Values::Ints(v1::Ints { values });
    let columns = feed::WRITTEN
        .iter()
        .map(|name| {
            let values = (0..ROWS).map(|_| random.below(10_000) as i64).collect();
            message::column(name, ints(values))
        })
        .collect();
    let form = write_request::Form::Columnar(v1::ColumnarRows {
        operation: v1::Operation::Upsert.into(),
        key: Some(message::column("", ints(message::keys(ROWS)))),
        columns,
    });
    message::encoded(1, form)
}

fn main() {
    let mut criterion: Criterion = common::criterion();
    let schema = common::schema();
    let limits = feed::limits();
    let one = |form| message::requests(form, 1, ROWS).remove(0);
    let with_prost = |message: &Bytes| {
        let request = v1::WriteRequest::decode(message.clone()).expect("a request");
        let form = request.form.as_ref().expect("rows");
        hot::block(form, &schema, &limits).expect("a request that fits the feed")
    };
    let off_the_wire = |message: &Bytes| {
        hot::wire_block(message, &schema, &limits)
            .expect("the row form")
            .expect("a request that fits the feed")
    };

    let mut group = common::group(&mut criterion, "decode", ROWS);
    let message = one(Form::Columnar);
    group.bench_function("columnar_fixed_width", |b| {
        b.iter(|| with_prost(black_box(&message)));
    });
    let message = packed();
    group.bench_function("columnar_packed", |b| {
        b.iter(|| with_prost(black_box(&message)));
    });
    let message = one(Form::Rows);
    group.bench_function("rows_off_the_wire", |b| {
        b.iter(|| off_the_wire(black_box(&message)));
    });
    group.bench_function("rows_with_prost", |b| {
        b.iter(|| with_prost(black_box(&message)));
    });
    group.finish();

    // One row a message, as many together as a stream brings.
    for together in [1, 32, 256] {
        let messages = message::requests(Form::Single, together, 1);
        let mut group = common::group(&mut criterion, "decode/one_row_messages", together);
        group.bench_function(format!("together_{together}"), |b| {
            b.iter(|| {
                let messages = black_box(&messages).iter().map(|message| &message[..]);
                let (_, block) = hot::lone_rows(messages, &schema).expect("one row each");
                block.expect("rows that fit the feed")
            });
        });
        group.finish();
    }
    criterion.final_summary();
}
