//! Allocations of the columnar path do not grow with its rows.

use pgbraid_micro::{
    alloc::Counting,
    message::Form,
    steady::{Arrival, Steady},
};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations a request, once warm. Few tables, so that few batches are made of many rows.
fn a_request(rows: usize) -> f64 {
    let arrival = Arrival {
        rows,
        streams: 2,
        tables: 4,
        ..Arrival::default()
    };
    let requests = 64;
    let steady = Steady::new(Form::Columnar, &arrival).unwrap();
    let (allocated, written) = steady.allocations(requests).unwrap();
    assert_eq!(written, requests * rows as u64);
    assert!(
        allocated.calls > 0,
        "the program's allocator does not count"
    );
    allocated.calls as f64 / requests as f64
}

/// What is allocated is allocated for a request, a table's batch or a statement, never for a row:
/// growing vectors add a few calls each time the rows double.
#[test]
fn columnar_rows_cost_no_allocation() {
    let (few, many) = (a_request(1000), a_request(4000));
    println!("{few:.1} allocations a request of 1000 rows, {many:.1} of 4000");
    assert!(
        few < 0.05 * 1000.0,
        "{few:.1} allocations a request of 1000 rows: {:.3} a row",
        few / 1000.0
    );
    assert!(
        many < few * 1.5,
        "{few:.1} allocations a request of 1000 rows, but {many:.1} of 4000: they grow with the rows"
    );
}
