//! The tables of the guide for authors.

use wvs_abi::description::{Constant, EXPORTS, Function, GROUPS, IMPORTS, Kind, RECORDS, Record};

use super::text;

/// The guide with each of its tables written anew, between the marks
/// `<!-- NAME: generated -->` and `<!-- end of NAME -->`.
///
/// # Panics
/// When the guide lacks a table's marks.
#[must_use]
pub fn with_tables(guide: &str) -> String {
    let mut guide = guide.to_owned();
    let groups = GROUPS.iter().map(|group| (group.name.to_owned(), numbers(group.constants)));
    let records = RECORDS.iter().map(|record| (record.name.to_owned(), fields(record)));
    let functions = [("exports", functions(&EXPORTS)), ("imports", functions(&IMPORTS))];
    let functions = functions.map(|(name, table)| (name.to_owned(), table));
    for (name, table) in functions.into_iter().chain(groups).chain(records) {
        let [start, end] =
            [format!("<!-- {name}: generated -->\n"), format!("<!-- end of {name} -->\n")];
        let (before, rest) =
            guide.split_once(&start).unwrap_or_else(|| panic!("the guide has no {start}"));
        let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("the guide has no {end}"));
        guide = format!("{before}{start}{table}{end}{after}");
    }
    guide
}

fn functions(functions: &[Function]) -> String {
    let mut table = "| function | signature | | |\n| --- | --- | --- | --- |\n".to_owned();
    for Function { module, name, parameters, result, is_required, about } in functions {
        let dot = if module.is_empty() { "" } else { "." };
        let result = if result.is_empty() { "()" } else { result };
        let parameters = parameters.join(", ");
        let needed = if *is_required { "required" } else { "optional" };
        let about = cell(about);
        table += &format!(
            "| `{module}{dot}{name}` | `({parameters}) -> {result}` | {needed} | {about} |\n"
        );
    }
    table
}

fn numbers(constants: &[Constant]) -> String {
    let mut table = "| value | name | |\n| --- | --- | --- |\n".to_owned();
    for Constant { name, value, about } in constants {
        table += &format!("| {value} | {name} | {} |\n", cell(about));
    }
    table
}

fn fields(record: &Record) -> String {
    let mut table = "| offset | type | field | |\n| --- | --- | --- | --- |\n".to_owned();
    for field in record.fields {
        let kind = match field.kind {
            Kind::U8 => "u8",
            Kind::U16 => "u16",
            Kind::U32 => "u32",
            Kind::U64 => "u64",
            Kind::Address => "u8\\[16]",
        };
        let about = cell(field.about);
        table += &format!("| {} | {kind} | `{}` | {about} |\n", field.offset, field.name);
    }
    table
}

/// Text in a table, where a bar would end the cell.
fn cell(about: &str) -> String {
    text(about).replace('|', "\\|")
}
