//! Binary arrays written straight from slices.

use bytes::{BufMut, BytesMut};
use postgres_types::{IsNull, ToSql, Type};

type BoxError = Box<dyn std::error::Error + Sync + Send>;

/// An `int8[]` without nulls.
#[derive(Debug)]
pub struct Int8s<'a>(pub &'a [i64]);

/// An `int4[]` without nulls.
#[derive(Debug)]
pub struct Int4s<'a>(pub &'a [i32]);

/// One dimension, no nulls, indexes from 1.
fn header(element: &Type, count: usize, out: &mut BytesMut) -> Result<(), BoxError> {
    out.put_i32(1);
    out.put_i32(0);
    out.put_u32(element.oid());
    out.put_i32(i32::try_from(count)?);
    out.put_i32(1);
    Ok(())
}

impl ToSql for Int8s<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, BoxError> {
        out.reserve(20 + 12 * self.0.len());
        header(&Type::INT8, self.0.len(), out)?;
        for value in self.0 {
            out.put_i32(8);
            out.put_i64(*value);
        }
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::INT8_ARRAY
    }

    postgres_types::to_sql_checked!();
}

impl ToSql for Int4s<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, BoxError> {
        out.reserve(20 + 8 * self.0.len());
        header(&Type::INT4, self.0.len(), out)?;
        for value in self.0 {
            out.put_i32(4);
            out.put_i32(*value);
        }
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::INT4_ARRAY
    }

    postgres_types::to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_those_of_vectors() {
        let (mut ours, mut theirs) = (BytesMut::new(), BytesMut::new());
        Int8s(&[5, -7])
            .to_sql_checked(&Type::INT8_ARRAY, &mut ours)
            .unwrap();
        vec![5i64, -7]
            .to_sql_checked(&Type::INT8_ARRAY, &mut theirs)
            .unwrap();
        assert_eq!(ours, theirs);
        let (mut ours, mut theirs) = (BytesMut::new(), BytesMut::new());
        Int4s(&[1, 2, -3])
            .to_sql_checked(&Type::INT4_ARRAY, &mut ours)
            .unwrap();
        vec![1i32, 2, -3]
            .to_sql_checked(&Type::INT4_ARRAY, &mut theirs)
            .unwrap();
        assert_eq!(ours, theirs);
        assert!(
            Int4s(&[1])
                .to_sql_checked(&Type::INT8_ARRAY, &mut BytesMut::new())
                .is_err()
        );
    }
}
