//! Prints the results.

use crate::goals::{self, Outcome};
use crate::measure::{Row, Spread, Table};

pub(crate) fn print_table(table: &Table) {
    println!("\n{}: {}", table.name, table.what);
    print!("{:26}", "");
    table.columns.iter().for_each(|column| print!("{column:>32}"));
    println!();
    table.rows.iter().for_each(print_row);
}

fn print_row(row: &Row) {
    print!("{:26}", row.name);
    for Spread { median, min, max } in &row.figures {
        print!("{:>32}", format!("{} [{}..{}]", number(*median), number(*min), number(*max)));
    }
    println!();
}

pub(crate) fn print_goals(tables: &[Table]) {
    let outcomes = goals::outcomes(tables);
    println!("\ngoals: our median over that of a rival, limit or variant; smaller is better");
    println!("{:8} {:8} {:12} {:>10}   {:>10} {:28} {:>6} {:>6}", "", "", "", "ours", "theirs", "", "ratio", "goal");
    for outcome in &outcomes {
        let Outcome { workload, figure, ours, rival, goal } = outcome;
        let verdict = if outcome.is_met() { "met" } else { "short" };
        let (our_figure, their_figure) = (number(ours.1), number(rival.1));
        println!(
            "{workload:8} {figure:8} {:12} {our_figure:>10} / {their_figure:>10} {:28} {:>6} {:>6}  {verdict}",
            ours.0,
            rival.0,
            ratio(outcome.ratio()),
            ratio(*goal),
        );
    }
    println!("{} of {} met", outcomes.iter().filter(|outcome| outcome.is_met()).count(), outcomes.len());
}

pub(crate) fn figures(columns: &[&str], values: &[f64]) -> String {
    let figures = columns.iter().zip(values).map(|(column, value)| format!("{column} {}", number(*value)));
    figures.collect::<Vec<_>>().join(", ")
}

/// Three digits or more.
fn number(value: f64) -> String {
    match value {
        ..10.0 => format!("{value:.2}"),
        ..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// Two digits or more.
fn ratio(value: f64) -> String {
    match value {
        ..0.01 => format!("{value:.4}"),
        ..0.1 => format!("{value:.3}"),
        _ => format!("{value:.2}"),
    }
}
