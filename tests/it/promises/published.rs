//! `docs/promises.md` shows the table as it is tested.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::table::{Cell, Kind, PromiseIn, PromiseOut, WayIn, WayOut, way_in, way_out};

/// One table in Markdown, with its notes below.
fn table<P: Copy, W: Copy>(
    rows: &[(P, &str)],
    columns: &[(W, &str)],
    notes: &mut Vec<&'static str>,
    cell: impl Fn(P, W) -> Cell,
) -> String {
    let mut text = String::from("| promise |");
    columns.iter().for_each(|(_, name)| write!(text, " {name} |").unwrap());
    text.push_str("\n|---|");
    columns.iter().for_each(|_| text.push_str("---|"));
    text.push('\n');
    for (promise, sentence) in rows {
        write!(text, "| {sentence} |").unwrap();
        for (way, _) in columns {
            match cell(*promise, *way) {
                Cell::Holds => text.push_str(" yes |"),
                Cell::Not(why) => {
                    let at = notes.iter().position(|note| *note == why).unwrap_or_else(|| {
                        notes.push(why);
                        notes.len() - 1
                    });
                    write!(text, " {} |", at + 1).unwrap();
                }
            }
        }
        text.push('\n');
    }
    text
}

fn all() -> String {
    let mut text = String::new();
    let mut notes = Vec::new();
    let ways_in: Vec<_> = WayIn::ALL.iter().map(|way| (*way, way.name())).collect();
    let ways_out: Vec<_> = WayOut::ALL.iter().map(|way| (*way, way.name())).collect();
    let promises_in: Vec<_> = PromiseIn::ALL.iter().map(|promise| (*promise, promise.text())).collect();
    let promises_out: Vec<_> = PromiseOut::ALL.iter().map(|promise| (*promise, promise.text())).collect();
    for (kind, name) in [(Kind::Threads, "`ThreadPoolExecutor`"), (Kind::Processes, "`ProcessPoolExecutor`")] {
        let cells = table(&promises_in, &ways_in, &mut notes, |promise, way| way_in(promise, way, kind));
        write!(text, "### Ways to start work: {name}\n\n{cells}\n").unwrap();
    }
    for (kind, name) in [(Kind::Threads, "`ThreadPoolExecutor`"), (Kind::Processes, "`ProcessPoolExecutor`")] {
        let cells = table(&promises_out, &ways_out, &mut notes, |promise, way| way_out(promise, way, kind));
        write!(text, "### Ways to see its end: {name}\n\n{cells}\n").unwrap();
    }
    text.push_str("### Why there is no such promise\n\n");
    notes.iter().enumerate().for_each(|(n, note)| writeln!(text, "{}. {note}", n + 1).unwrap());
    text
}

/// With the variable `PROMISES_WRITE` set it writes the file instead.
#[test]
fn the_documentation_shows_the_table() {
    const BEGIN: &str = "<!-- The tables are written by the test `promises::published`. -->\n";
    const END: &str = "<!-- End of the tables. -->";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/promises.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the page has the first mark");
    let (_, after) = rest.split_once(END).expect("the page has the second mark");
    let right = format!("{before}{BEGIN}\n{}\n{END}{after}", all());
    if std::env::var_os("PROMISES_WRITE").is_some() {
        fs::write(&path, right).unwrap();
    } else {
        assert!(page == right, "docs/promises.md differs; run this test with PROMISES_WRITE=1");
    }
}
