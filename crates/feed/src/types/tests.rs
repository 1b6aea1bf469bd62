use postgres_types::Type;

use super::{ArrayElement, ColumnType, Storage};

fn catalog(oid: u32, typmod: i32) -> ColumnType {
    ColumnType::from_catalog(oid, typmod, "sql")
}

/// Modifiers as PostgreSQL 15 stores them for the declarations in the comments.
#[test]
fn modifiers_are_decoded() {
    let numeric = |precision, scale| ColumnType::Numeric { precision, scale };
    assert_eq!(catalog(1700, -1), numeric(None, 0)); // numeric
    assert_eq!(catalog(1700, 655_366), numeric(Some(10), 2)); // numeric(10,2)
    assert_eq!(catalog(1700, 327_684), numeric(Some(5), 0)); // numeric(5)
    assert_eq!(catalog(1700, 198_657), numeric(Some(3), -3)); // numeric(3,-3)
    assert_eq!(catalog(1700, 131_080), numeric(Some(2), 4)); // numeric(2,4)
    assert_eq!(catalog(1700, 65_537_004), numeric(Some(1000), 1000)); // numeric(1000,1000)
    assert_eq!(catalog(1043, -1), ColumnType::Varchar { max: None });
    assert_eq!(catalog(1043, 24), ColumnType::Varchar { max: Some(20) });
    assert_eq!(catalog(1042, 7), ColumnType::Char { len: 3 });
    assert_eq!(
        catalog(1042, -1),
        ColumnType::Other {
            sql: "bpchar".into()
        }
    );
}

#[test]
fn absurd_modifiers_do_no_harm() {
    for oid in [1042, 1043, 1700] {
        for typmod in [i32::MIN, -4, 0, 3, 4, i32::MAX] {
            let ty = catalog(oid, typmod);
            assert!(!ty.sql_name().is_empty());
        }
    }
}

#[test]
fn what_is_not_known_is_other() {
    let inet = ColumnType::from_catalog(869, -1, "inet");
    assert_eq!(inet, ColumnType::Other { sql: "inet".into() });
    let own = ColumnType::from_catalog(424_242, -1, "public.\"order state\"");
    assert_eq!(own.sql_name(), "public.\"order state\"");
    assert_eq!(own.wire_type(), Type::TEXT);
    assert_eq!(own.storage(), Storage::Var);
    assert!(own.needs_cast());
}

/// A type that is carried in a fixed width or without a cast must go out under its own oid.
#[test]
fn wire_types_agree_with_the_catalog() {
    let oids = [
        16, 17, 20, 21, 23, 25, 114, 700, 701, 1005, 1007, 1009, 1016, 1043, 1082, 1083, 1114,
        1184, 1186, 1700, 2950, 3802,
    ];
    for oid in oids {
        let ty = catalog(oid, -1);
        assert!(!matches!(ty, ColumnType::Other { .. }), "{oid}");
        let same = ty.wire_type().oid() == oid;
        let assigned = matches!(ty, ColumnType::Varchar { .. });
        assert!(same || assigned || ty.needs_cast(), "{oid}");
        assert!(same || ty.wire_type() == Type::TEXT, "{oid}");
        let named = ty.wire_type().name() == ty.sql_name();
        assert_eq!(named, same, "{oid}");
    }
}

#[test]
fn names() {
    let name = |ty: ColumnType| ty.sql_name();
    assert_eq!(name(catalog(1700, 655_366)), "numeric(10,2)");
    assert_eq!(name(catalog(1043, 24)), "varchar(20)");
    assert_eq!(name(catalog(1042, 7)), "char(3)");
    assert_eq!(name(ColumnType::Array(ArrayElement::Int4)), "int4[]");
}
