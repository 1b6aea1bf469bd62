use super::*;

#[test]
fn instance_names_are_strict() {
    for index in 0..=255u8 {
        let name = InstanceName::new(index);
        assert_eq!(name.to_string().parse(), Ok(name));
        assert_eq!(name.index(), index);
    }
    for bad in [
        "", "db", "0", "db00", "db01", "db256", "db-1", "db+1", "DB1", "db1 ", " db1", "db1x",
        "db٣",
    ] {
        let error = bad.parse::<InstanceName>().unwrap_err();
        assert_eq!(error, NameError::Instance(bad.into()));
    }
    assert_eq!(
        "db256".parse::<InstanceName>().unwrap_err().to_string(),
        "'db256': instances are named db0 to db255 (no leading zeros), at most 256"
    );
    assert!(InstanceName::new(2) < InstanceName::new(10));
}

#[test]
fn table_ids_are_strict() {
    for index in [0, 1, 17, 4095, u32::MAX] {
        let table = TableId::new(index);
        assert_eq!(table.to_string().parse(), Ok(table));
    }
    for bad in ["", "tbl", "tbl01", "tbl4294967296", "table1", "tbl-1"] {
        assert_eq!(
            bad.parse::<TableId>(),
            Err(NameError::Table(bad.to_owned()))
        );
    }
}

#[test]
fn feed_names_are_checked() {
    let long = "a".repeat(41);
    for good in ["orders", "_x", "a1_2", &long[..40]] {
        assert_eq!(FeedName::parse(good).unwrap().as_ref(), good);
    }
    for bad in ["", "1a", "Orders", "a-b", "a b", "größe", "a.b", &long] {
        assert_eq!(FeedName::parse(bad), Err(NameError::Feed(bad.to_owned())));
    }
}

#[test]
fn epochs_grow_and_never_wrap() {
    assert!(Epoch(1) < Epoch(1).next());
    assert_eq!(Epoch(u64::MAX).next(), Epoch(u64::MAX));
    assert_eq!(Epoch(7).to_string(), "7");
}
