use clap::CommandFactory;
use clap::error::ErrorKind;

use super::*;

fn parse(line: &str) -> Result<Args, clap::Error> {
    Args::try_parse_from(line.split_whitespace())
}

#[test]
fn the_definition_is_sound() {
    Args::command().debug_assert();
}

#[test]
fn commands_as_they_are_documented() {
    for line in [
        "pgbraid serve --config F --grpc-listen 127.0.0.1:0 --http-listen [::1]:0",
        "pgbraid demo --instances 4 --tables 64 --for 20 --rate max --json",
        "pgbraid dev up --dir D --instances 4 --tables 64 --schema S --feed orders --durable",
        "pgbraid dev down --dir D --remove",
        "pgbraid dev status --dir D --json",
        "pgbraid check --config F --online --json",
        "pgbraid migrate --config F",
        "pgbraid map show --config F --router http://h:1",
        "pgbraid map locate -5 --feed orders",
        "pgbraid rules list --feed orders",
        "pgbraid rules put big --feed f --when a>1 --channel c --reason r --mode level --version 0",
        "pgbraid rules put -f rules.toml --prune --dry-run",
        "pgbraid rules rm big --version 3",
        "pgbraid rules test big",
        "pgbraid rules test --feed orders --when a>1",
        "pgbraid changes tail --feed a --rows --count 3 --json",
        "pgbraid alerts tail --feed a --feed b --channel c --from earliest --count 3 --json",
        "pgbraid load --feed f --columns a,b --form single --keys runs --rate 100 --for 3",
        "pgbraid status --json",
        "pgbraid completions bash",
    ] {
        if let Err(error) = parse(line) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn wrong_usage() {
    use ErrorKind::{ArgumentConflict, InvalidValue, MissingRequiredArgument, ValueValidation};
    for (line, kind) in [
        ("pgbraid dev up", MissingRequiredArgument),
        ("pgbraid dev up --dir D --instances 257", ValueValidation),
        ("pgbraid demo --rate fast", ValueValidation),
        ("pgbraid rules put", MissingRequiredArgument),
        ("pgbraid rules put big --feed f", MissingRequiredArgument),
        ("pgbraid rules put big -f rules.toml", ArgumentConflict),
        ("pgbraid rules test", MissingRequiredArgument),
        ("pgbraid rules test big --feed f --when x", ArgumentConflict),
        ("pgbraid load --form fast", InvalidValue),
        ("pgbraid alerts tail --count 0", ValueValidation),
    ] {
        let error = parse(line).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), kind, "{line}: {error}");
    }
}
