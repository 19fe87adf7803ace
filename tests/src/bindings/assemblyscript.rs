//! The file for AssemblyScript.

use wvs_abi::ABI_VERSION;
use wvs_abi::description::{Constant, Field, Function, GROUPS, Kind, RECORDS, Record};

use super::{
    LIMITS, WIDTH, comment, export_text, exports, imports, is_signed, pascal, preamble, text,
};

pub(super) fn file() -> String {
    let [about, origin] = preamble();
    let mut file = comment("// ", &about) + "//\n" + &comment("// ", &origin);
    file += "//\n// What a plugin exports:\n";
    for function in exports() {
        file += &format!("//\n//     export function {}\n", signature(function));
        file += &comment("// ", &export_text(function));
    }
    file += "\n/** What `wvs_abi` returns. */\n";
    file += &format!("export const ABI_VERSION: u32 = {ABI_VERSION:#010x};\n");
    for Constant { name, value, about } in LIMITS {
        file += &format!("\n{}export const {name}: u32 = {value};\n", note("", &text(about)));
    }
    for group in GROUPS {
        file += &format!("\n{}", note("", &text(group.about)));
        file += &format!("export const enum {} {{\n", pascal(group.name));
        for Constant { name, value, about } in group.constants {
            file += &format!("{}  {name} = {value},\n", note("  ", &text(about)));
        }
        file += "}\n";
    }
    for record in &RECORDS {
        file += &class(record);
    }
    for function in imports() {
        file += &format!("\n{}", note("", &text(function.about)));
        file += "// @ts-ignore: decorator\n";
        file += &format!("@external(\"{}\", \"{}\")\n", function.module, function.name);
        file += &format!("export declare function {};\n", signature(function));
    }
    file
}

fn class(record: &Record) -> String {
    let name = record.name;
    let mut code = format!("\n{}", note("", &text(record.about)));
    code += &format!("// @ts-ignore: decorator\n@unmanaged\nexport class {name} {{\n");
    let mut agreements = vec![format!("offsetof<{name}>() != {}", record.size)];
    for Field { name: field, kind, offset, about } in record.fields {
        let about = note("  ", &text(about));
        let field = camel(field);
        let mut first = field.clone();
        code += &match kind {
            Kind::U8 => format!("{about}  {field}: u8;\n"),
            Kind::U16 => format!("{about}  {field}: u16;\n"),
            Kind::U32 => format!("{about}  {field}: u32;\n"),
            Kind::U64 => format!("{about}  {field}: u64;\n"),
            // No array can lie within a class: the class says where in memory the octets are.
            Kind::Address => {
                first += "First";
                format!(
                    "  private {first}: u64;\n  private {field}Rest: u64;\n\
                     {about}  get {field}At(): usize {{\n    return \
                     changetype<usize>(this) + {offset};\n  }}\n",
                )
            }
        };
        agreements.push(format!("offsetof<{name}>(\"{first}\") != {offset}"));
    }
    code += "}\n\n";
    for agreement in agreements {
        code += &format!("if ({agreement}) ERROR(\"{name} is not laid out as agreed\");\n");
    }
    code
}

/// `client_port` as `clientPort`.
fn camel(name: &str) -> String {
    let name = pascal(name);
    name[..1].to_lowercase() + &name[1..]
}

fn signature(function: &Function) -> String {
    let parameters: Vec<_> = function
        .parameters
        .iter()
        .map(|name| match *name {
            "text" => format!("{name}: usize"),
            _ => format!("{name}: u32"),
        })
        .collect();
    let result = match function.result {
        "" => "void",
        "address" => "usize",
        result if is_signed(result) => "i32",
        _ => "u32",
    };
    format!("{}({}): {result}", function.name, parameters.join(", "))
}

/// A comment of one line or several.
fn note(indent: &str, text: &str) -> String {
    let line = format!("{indent}/** {text} */\n");
    if line.len() <= WIDTH + 1 {
        return line;
    }
    format!("{indent}/**\n{}{indent} */\n", comment(&format!("{indent} * "), text))
}
