use super::*;

fn pair(name: &str, value: &str) -> Vec<(String, String)> {
    vec![(name.to_owned(), value.to_owned())]
}

#[test]
fn values_are_quoted_and_later_ones_win() {
    let text = text(
        "db3",
        5000,
        false,
        &pair("application_name", r"o'neill \ co"),
    );
    assert!(text.contains("\nport = '5000'\n"));
    assert!(text.contains("\nfsync = 'off'\n"));
    assert!(
        text.ends_with("application_name = 'o''neill \\\\ co'\n"),
        "{text}"
    );
}

#[test]
fn a_durable_instance_keeps_the_safe_defaults() {
    assert!(!text("db0", 5000, true, &[]).contains("fsync"));
}

#[test]
fn bad_settings_are_refused() {
    for (name, value) in [
        ("", "1"),
        ("fsync = off #", "1"),
        ("work_mem", "1MB\nport = 1"),
        ("PORT", "5432"),
        ("include", "/etc/passwd"),
    ] {
        assert!(check(&pair(name, value)).is_err(), "{name}={value}");
    }
    check(&pair("auto_explain.log_min_duration", "3")).unwrap();
}
