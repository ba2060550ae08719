//! The spool: what is kept, what is dropped, and what a reader sees of it.

use super::*;
use types::api::LogQuery;

struct Case {
    dir: tempfile::TempDir,
    spool: Spool,
}

fn case(file_bytes_max: u64) -> Case {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::new(dir.path().to_owned(), BootId(1), file_bytes_max);
    Case { dir, spool }
}

impl Case {
    fn write(&mut self, run: u32, text: &str) {
        self.write_at(run, text, 0);
    }

    fn write_at(&mut self, run: u32, text: &str, unix_ns: i64) {
        let chunk = LogChunk {
            container: "web".into(),
            run,
            stderr: false,
            unix_ns,
            bytes: text.as_bytes().to_vec(),
        };
        self.spool.append(&chunk).unwrap();
    }

    fn open(&self, query: &LogQuery) -> Reader {
        Reader::open(self.dir.path(), "web", query).unwrap()
    }

    fn read(&self, query: &LogQuery) -> String {
        rest(&mut self.open(query))
    }
}

fn rest(reader: &mut Reader) -> String {
    let mut text = String::new();
    loop {
        let batch = reader.next().unwrap();
        for line in batch.lines {
            text.push_str(std::str::from_utf8(&line.bytes).unwrap());
        }
        if batch.is_end {
            return text;
        }
    }
}

fn query() -> LogQuery {
    LogQuery::default()
}

#[test]
fn what_was_written_is_read_and_the_tail_counts_lines_not_records() {
    let mut case = case(1 << 20);
    assert_eq!(case.read(&query()), "");
    case.write(0, "one\ntwo\nthr");
    case.write(0, "ee\nfour");
    assert_eq!(case.read(&query()), "one\ntwo\nthree\nfour");
    for (tail, expected) in [
        (0, ""),
        (1, "four"),
        (2, "three\nfour"),
        (9, "one\ntwo\nthree\nfour"),
    ] {
        let tail = LogQuery {
            tail: Some(tail),
            ..query()
        };
        assert_eq!(case.read(&tail), expected);
    }
}

#[test]
fn only_what_is_as_new_as_asked_is_read() {
    let mut case = case(1 << 20);
    case.write_at(0, "old\n", 1_999_999);
    case.write_at(0, "new\n", 2_000_000);
    let since = LogQuery {
        since_ms: Some(2),
        ..query()
    };
    assert_eq!(case.read(&since), "new\n");
}

#[test]
fn a_run_keeps_two_files_and_a_container_two_runs() {
    let mut case = case(100);
    for run in 0..4 {
        for line in 0..40 {
            case.write(run, &format!("run {run} line {line}\n"));
        }
    }
    let names = list(&case.dir.path().join("web")).unwrap();
    assert_eq!(names.len(), 4, "{names:?}");
    let size = |name: &Name| {
        name.path(&case.dir.path().join("web"))
            .metadata()
            .unwrap()
            .len()
    };
    assert!(names.iter().all(|name| size(name) <= 100));
    let current = case.read(&query());
    assert!(
        current.starts_with("run 3") && current.ends_with("run 3 line 39\n"),
        "{current}"
    );
    let previous = case.read(&LogQuery {
        previous: true,
        ..query()
    });
    assert!(previous.starts_with("run 2") && previous.ends_with("run 2 line 39\n"));
}

#[test]
fn following_goes_on_over_files_and_runs_and_loses_nothing() {
    let mut case = case(64);
    let follow = LogQuery {
        follow: true,
        ..query()
    };
    let mut reader = case.open(&follow);
    assert_eq!(rest(&mut reader), "");
    let mut expected = String::new();
    let mut seen = String::new();
    for run in 0..3 {
        for line in 0..10 {
            let text = format!("run {run} line {line}\n");
            case.write(run, &text);
            expected.push_str(&text);
            seen.push_str(&rest(&mut reader));
        }
    }
    assert_eq!(seen, expected);
}

#[test]
fn a_run_that_wrote_nothing_is_still_the_current_one() {
    let mut case = case(1 << 20);
    case.write(0, "first\n");
    case.spool.begin("web", 1).unwrap();
    assert_eq!(case.read(&query()), "");
    assert_eq!(
        case.read(&LogQuery {
            previous: true,
            ..query()
        }),
        "first\n"
    );
}

#[test]
fn a_torn_record_ends_the_file_and_a_later_boot_goes_on() {
    let mut case = case(1 << 20);
    case.write(0, "whole\n");
    let path = list(&case.dir.path().join("web")).unwrap()[0].path(&case.dir.path().join("web"));
    let mut file = OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(&[0, 0, 0, 50, 1, 2]).unwrap();
    let mut reader = case.open(&LogQuery {
        follow: true,
        ..query()
    });
    assert_eq!(rest(&mut reader), "whole\n");
    case.spool = Spool::new(case.dir.path().to_owned(), BootId(2), 1 << 20);
    case.write(0, "after\n");
    assert_eq!(rest(&mut reader), "after\n");
}

#[test]
fn a_line_without_end_is_cut_into_records_of_bounded_length() {
    let mut case = case(1 << 20);
    let long = "x".repeat(LINE_BYTES_MAX * 2 + 1);
    case.write(0, &long);
    let batch = case.open(&query()).next().unwrap();
    assert_eq!(batch.lines.len(), 3);
    assert_eq!(
        case.read(&LogQuery {
            tail: Some(1),
            ..query()
        }),
        long
    );
}
