//! A request with some of its rows.

use bytes::Bytes;
use pgbraid_proto::v1::{self, column::Values, write_request::Form};

/// Keeps the rows at these places, in this order. Places beyond the end are left out.
pub(super) fn keep_only(request: &mut v1::WriteRequest, places: &[u32]) {
    match &mut request.form {
        Some(Form::Rows(batch)) => batch.rows = pick(&batch.rows, places),
        Some(Form::Columnar(rows)) => {
            for column in rows.key.iter_mut().chain(&mut rows.columns) {
                keep_values(column, places);
            }
        }
        None => {}
    }
}

fn keep_values(column: &mut v1::Column, places: &[u32]) {
    if !column.nulls.is_empty() {
        let mut bits = vec![0; places.len().div_ceil(8)];
        for (new, &old) in places.iter().enumerate() {
            let byte = column.nulls.get(old as usize / 8).copied();
            if byte.unwrap_or_default() & (1 << (old % 8)) != 0 {
                bits[new / 8] |= 1 << (new % 8);
            }
        }
        column.nulls = bits.into();
    }
    match &mut column.values {
        None => {}
        Some(Values::Bools(bytes)) => *bytes = fixed(bytes, places, 1),
        Some(Values::Int16s(bytes)) => *bytes = fixed(bytes, places, 2),
        Some(Values::Int32s(bytes) | Values::Float32s(bytes)) => *bytes = fixed(bytes, places, 4),
        Some(Values::Int64s(bytes) | Values::Float64s(bytes)) => *bytes = fixed(bytes, places, 8),
        Some(Values::Uuids(bytes)) => *bytes = fixed(bytes, places, 16),
        Some(Values::Utf8(texts)) => *texts = keep_texts(texts, places),
        Some(Values::Ints(list)) => list.values = pick(&list.values, places),
        Some(Values::Doubles(list)) => list.values = pick(&list.values, places),
        Some(Values::Texts(list)) => list.values = pick(&list.values, places),
        Some(Values::Blobs(list)) => list.values = pick(&list.values, places),
        Some(Values::PackedBools(list)) => list.values = pick(&list.values, places),
    }
}

fn pick<T: Clone>(values: &[T], places: &[u32]) -> Vec<T> {
    let at = |&place: &u32| values.get(place as usize).cloned();
    places.iter().filter_map(at).collect()
}

fn fixed(bytes: &Bytes, places: &[u32], width: usize) -> Bytes {
    let mut kept = Vec::with_capacity(places.len() * width);
    for &place in places {
        let start = place as usize * width;
        kept.extend_from_slice(bytes.get(start..start + width).unwrap_or_default());
    }
    kept.into()
}

fn keep_texts(texts: &v1::Utf8, places: &[u32]) -> v1::Utf8 {
    let end = |row: usize| {
        let bytes = texts.ends.get(row * 4..row * 4 + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
    };
    let (mut data, mut ends) = (Vec::new(), Vec::new());
    for &place in places {
        let row = place as usize;
        let start = row.checked_sub(1).map_or(Some(0), end);
        let Some((start, end)) = start.zip(end(row)) else {
            continue;
        };
        data.extend_from_slice(texts.data.get(start..end).unwrap_or_default());
        // Not longer than the texts it was taken from, unless a place stands there twice.
        ends.extend_from_slice(&u32::try_from(data.len()).unwrap_or(u32::MAX).to_le_bytes());
    }
    v1::Utf8 {
        data: data.into(),
        ends: ends.into(),
    }
}
