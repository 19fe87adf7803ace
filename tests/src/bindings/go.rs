//! The package for Go.

use wvs_abi::ABI_VERSION;
use wvs_abi::description::{Constant, Field, Function, GROUPS, Kind, RECORDS, Record};

use super::{LIMITS, comment, export_text, exports, imports, is_signed, pascal, preamble, text};

pub(super) fn package() -> String {
    let [about, _] = preamble();
    // In the words that Go's own tools know a generated file by.
    let mut file = "// Code generated from the contract of WVS. DO NOT EDIT.\n\n".to_owned();
    file += &comment("// ", &about.replacen("The contract", "Package wvs is the contract", 1));
    file += "//\n// What a plugin exports:\n";
    for function in exports() {
        file += &format!("//\n//\t//go:wasmexport {}\n", function.name);
        file += &format!("//\t{}\n//\n", signature(&local(function.name), function));
        file += &comment("// ", &export_text(function));
    }
    file += "package wvs\n\nimport \"unsafe\"\n";
    file += "\n// ABIVersion is what wvs_abi returns.\n";
    file += &format!("const ABIVersion = {ABI_VERSION:#010x}\n");
    for Constant { name, value, about } in LIMITS {
        file += &format!("\n{}const {} = {value}\n", comment("// ", &text(about)), pascal(name));
    }
    for group in GROUPS {
        file += &format!("\n{}const (\n", comment("// ", &text(group.about)));
        for Constant { name, value, about } in group.constants {
            let name = pascal(group.name) + &pascal(name);
            file += &format!("{}\t{name} = {value}\n", comment("\t// ", &text(about)));
        }
        file += ")\n";
    }
    for record in &RECORDS {
        file += &structure(record);
    }
    for function in imports() {
        let name = pascal(function.name);
        let about = text(function.about).replacen("Writes", &format!("{name} writes"), 1);
        file += &format!("\n{}//\n", comment("// ", &about));
        file += &format!("//go:wasmimport {} {}\n", function.module, function.name);
        file += &format!("{}\n", signature(&name, function));
    }
    file
}

fn structure(record: &Record) -> String {
    let name = record.name;
    let mut code = format!("\n{}", comment("// ", &text(record.about)));
    code += &format!("type {name} struct {{\n");
    for Field { name, kind, about, .. } in record.fields {
        let kind = match kind {
            Kind::U8 => "uint8",
            Kind::U16 => "uint16",
            Kind::U32 => "uint32",
            Kind::U64 => "uint64",
            Kind::Address => "[16]byte",
        };
        code += &format!("{}\t{} {kind}\n", comment("\t// ", &text(about)), field_name(name));
    }
    code += "}\n\n// Each line compiles only if the index is 0.\nvar (\n";
    code += &format!("\t_ = [1]byte{{}}[unsafe.Sizeof({name}{{}})-{}]\n", record.size);
    for field in record.fields {
        let (field, offset) = (field_name(field.name), field.offset);
        code += &format!("\t_ = [1]byte{{}}[unsafe.Offsetof({name}{{}}.{field})-{offset}]\n");
    }
    code + ")\n"
}

/// `service_id` as `ServiceID`, as Go writes it.
fn field_name(name: &str) -> String {
    let name = pascal(name);
    match name.strip_suffix("Id") {
        Some(before) => format!("{before}ID"),
        None => name,
    }
}

/// `wvs_servers_changed` as `wvsServersChanged`.
fn local(export: &str) -> String {
    let name = pascal(export);
    name[..1].to_lowercase() + &name[1..]
}

fn signature(name: &str, function: &Function) -> String {
    let parameters: Vec<_> = function
        .parameters
        .iter()
        .filter_map(|parameter| match *parameter {
            // A string is passed as its address and its length.
            "text" => Some("text string".to_owned()),
            "len" if function.parameters.contains(&"text") => None,
            other => Some(format!("{other} uint32")),
        })
        .collect();
    let result = match function.result {
        "" => "",
        "address" => " unsafe.Pointer",
        result if is_signed(result) => " int32",
        _ => " uint32",
    };
    format!("func {name}({}){result}", parameters.join(", "))
}
