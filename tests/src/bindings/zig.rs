//! The file for Zig.

use wvs_abi::ABI_VERSION;
use wvs_abi::description::{Constant, Field, Function, GROUPS, Kind, RECORDS, Record};

use super::{LIMITS, comment, export_text, exports, imports, is_signed, preamble, text};

pub(super) fn file() -> String {
    let [about, origin] = preamble();
    let mut file = comment("//! ", &about) + "//!\n" + &comment("//! ", &origin);
    file += "//!\n//! What a plugin exports:\n";
    for function in exports() {
        file += &format!("//!\n//! `export fn {}`\n", signature(function));
        file += &comment("//!     ", &export_text(function));
    }
    file += "\nconst assert = @import(\"std\").debug.assert;\n";
    file += "\n/// What `wvs_abi` returns.\n";
    file += &format!("pub const abi_version: u32 = {ABI_VERSION:#010x};\n");
    for limit in LIMITS {
        file += &format!("\n{}", constant("", "u32", &limit));
    }
    for group in GROUPS {
        let is_signed = group.constants.iter().any(|constant| constant.value < 0);
        let kind = if is_signed { "i32" } else { "u32" };
        file += &format!("\n{}", comment("/// ", &text(group.about)));
        file += &format!("pub const {} = struct {{\n", group.name);
        for number in group.constants {
            file += &constant("    ", kind, number);
        }
        file += "};\n";
    }
    for record in &RECORDS {
        file += &structure(record);
    }
    for function in imports() {
        file += &format!("\n{}", comment("/// ", &text(function.about)));
        file += &format!("pub extern \"{}\" fn {};\n", function.module, signature(function));
    }
    file
}

fn constant(indent: &str, kind: &str, Constant { name, value, about }: &Constant) -> String {
    let name = name.to_lowercase();
    // Words of the language's own are quoted.
    let name = match &*name {
        "defer" | "error" => format!("@\"{name}\""),
        _ => name,
    };
    let about = comment(&format!("{indent}/// "), &text(about));
    format!("{about}{indent}pub const {name}: {kind} = {value};\n")
}

fn structure(record: &Record) -> String {
    let name = record.name;
    let mut code = format!("\n{}", comment("/// ", &text(record.about)));
    code += &format!("pub const {name} = extern struct {{\n");
    for Field { name, kind, about, .. } in record.fields {
        let kind = match kind {
            Kind::U8 => "u8",
            Kind::U16 => "u16",
            Kind::U32 => "u32",
            Kind::U64 => "u64",
            Kind::Address => "[16]u8",
        };
        code += &format!("{}    {name}: {kind},\n", comment("    /// ", &text(about)));
    }
    code += "};\n\ncomptime {\n";
    code += &format!("    assert(@sizeOf({name}) == {});\n", record.size);
    for field in record.fields {
        code +=
            &format!("    assert(@offsetOf({name}, \"{}\") == {});\n", field.name, field.offset);
    }
    code + "}\n"
}

fn signature(function: &Function) -> String {
    let parameters: Vec<_> = function
        .parameters
        .iter()
        .map(|name| match *name {
            "text" => format!("{name}: [*]const u8"),
            _ => format!("{name}: u32"),
        })
        .collect();
    let result = match function.result {
        "" => "void",
        "address" => "?*anyopaque",
        result if is_signed(result) => "i32",
        _ => "u32",
    };
    format!("{}({}) {result}", function.name, parameters.join(", "))
}
