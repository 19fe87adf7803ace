//! The header for C and C++.

use wvs_abi::ABI_VERSION;
use wvs_abi::description::{Constant, Field, Function, GROUPS, Kind, RECORDS, Record};

use super::{
    LIMITS, WIDTH, comment, export_text, exports, imports, is_signed, preamble, snake, text,
};

pub(super) fn header() -> String {
    let [about, origin] = preamble();
    let mut file = format!("{}\n{}", note("", &about), note("", &origin));
    file += "
#ifndef WVS_H
#define WVS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern \"C\" {
#endif

/** What `wvs_abi` returns. */
";
    file += &format!("#define WVS_ABI_VERSION UINT32_C({ABI_VERSION:#010x})\n");
    for Constant { name, value, about } in LIMITS {
        file += &format!("\n{}#define WVS_{name} {value}\n", note("", &text(about)));
    }
    for group in GROUPS {
        file += &format!("\n{}enum {{\n", note("", &text(group.about)));
        for Constant { name, value, about } in group.constants {
            let group = group.name.to_uppercase();
            file += &note("    ", &text(about));
            file += &format!("    WVS_{group}_{name} = {value},\n");
        }
        file += "};\n";
    }
    for record in &RECORDS {
        file += &structure(record);
    }
    file += "
#define WVS_EXPORT(name) __attribute__((export_name(name)))
#define WVS_IMPORT(module, name) __attribute__((import_module(module), import_name(name)))
";
    for function in exports() {
        file += &format!("\n{}", note("", &export_text(function)));
        file +=
            &format!("WVS_EXPORT(\"{}\")\n{}", function.name, prototype(function.name, function));
    }
    for function in imports() {
        file += &format!("\n{}", note("", &text(function.about)));
        let name = format!("{}_{}", function.module, function.name);
        file += &format!("WVS_IMPORT(\"{}\", \"{}\")\n", function.module, function.name);
        file += &prototype(&name, function);
    }
    file += "
#ifdef __cplusplus
}
#endif

#endif
";
    file
}

fn structure(record: &Record) -> String {
    let name = format!("struct wvs_{}", snake(record.name));
    let mut code = format!("\n{}{name} {{\n", note("", &text(record.about)));
    for Field { name, kind, about, .. } in record.fields {
        let field = match kind {
            Kind::U8 => format!("uint8_t {name}"),
            Kind::U16 => format!("uint16_t {name}"),
            Kind::U32 => format!("uint32_t {name}"),
            Kind::U64 => format!("uint64_t {name}"),
            Kind::Address => format!("uint8_t {name}[16]"),
        };
        code += &format!("{}    {field};\n", note("    ", &text(about)));
    }
    code += "};\n";
    code += &format!("_Static_assert(sizeof({name}) == {}, \"{}\");\n", record.size, record.name);
    for field in record.fields {
        code += &format!(
            "_Static_assert(offsetof({name}, {}) == {}, \"{0}\");\n",
            field.name, field.offset
        );
    }
    code
}

fn prototype(name: &str, function: &Function) -> String {
    let parameters: Vec<_> = function
        .parameters
        .iter()
        .map(|name| match *name {
            "text" => format!("const char *{name}"),
            _ => format!("uint32_t {name}"),
        })
        .collect();
    let parameters = if parameters.is_empty() { "void".to_owned() } else { parameters.join(", ") };
    let result = match function.result {
        "" => "void ",
        "address" => "void *",
        result if is_signed(result) => "int32_t ",
        _ => "uint32_t ",
    };
    format!("{result}{name}({parameters});\n")
}

/// A comment of one line or several.
fn note(indent: &str, text: &str) -> String {
    let line = format!("{indent}/** {text} */\n");
    if line.len() <= WIDTH + 1 {
        return line;
    }
    let lines = comment(&format!("{indent} *  "), text);
    let first = lines.replacen(" * ", "/**", 1);
    format!("{} */\n", first.trim_end())
}
