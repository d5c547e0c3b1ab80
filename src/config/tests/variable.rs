//! What mistakes in variables and flags are told like, to the letter.

use super::World;

#[track_caller]
fn variable_tells(name: &str, value: &str, expected: &str) {
    assert_eq!(World::empty().env(name, value).error(), expected);
}

#[test]
fn variables_are_told_by_their_name() {
    variable_tells(
        "INGESTD_QUEUE__CONCURENCY",
        "1",
        "INGESTD_QUEUE__CONCURENCY: unknown variable\n\
         hint: did you mean INGESTD_QUEUE__CONCURRENCY?",
    );
    variable_tells(
        "INGESTD_HTTP_LISTEN",
        "1",
        "INGESTD_HTTP_LISTEN: unknown variable\nhint: did you mean INGESTD_HTTP__LISTEN?",
    );
    variable_tells(
        "INGESTD_QUEUES__IMPORT__CONCURRENC",
        "1",
        "INGESTD_QUEUES__IMPORT__CONCURRENC: unknown variable\n\
         hint: did you mean INGESTD_QUEUES__IMPORT__CONCURRENCY?",
    );
    variable_tells("INGESTD_COLOUR", "x", "INGESTD_COLOUR: unknown variable");
    variable_tells("INGESTD_QUEUE", "x", "INGESTD_QUEUE: unknown variable");
    variable_tells(
        "INGESTD_QUEUE__CONCURRENCY",
        "ten",
        "INGESTD_QUEUE__CONCURRENCY: queue.concurrency: expected a whole number, found string \"ten\"",
    );
    variable_tells(
        "INGESTD_QUEUE__CONCURRENCY",
        "70000",
        "INGESTD_QUEUE__CONCURRENCY: queue.concurrency: expected a whole number from 0 to 65535, \
         found integer 70000",
    );
    variable_tells(
        "INGESTD_DATABASE__URL_FILE",
        "DIR/nowhere",
        "INGESTD_DATABASE__URL_FILE: database.url_file: cannot read nowhere: \
         No such file or directory (os error 2)",
    );
}

#[test]
fn flags_are_told_as_such() {
    assert_eq!(
        World::empty().flag("http.listn", "x").error(),
        "flag: unknown key `http.listn`\nhint: did you mean `http.listen`?"
    );
    assert_eq!(
        World::empty().flag("http.listen", "x").error(),
        "flag: http.listen: expected an address and a port such as \"127.0.0.1:8477\", \
         found string \"x\""
    );
}
