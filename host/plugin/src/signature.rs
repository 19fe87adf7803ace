//! Signatures of functions, compared and put into words.

use wasmtime::{ExternType, FuncType};
use wvs_abi::description::Function;

/// Whether a module's function is the one of the contract: all parameters and results are `i32`.
pub(crate) fn is(found: &FuncType, contract: &Function) -> bool {
    found.params().len() == contract.parameters.len()
        && found.results().len() == usize::from(!contract.result.is_empty())
        && found.params().chain(found.results()).all(|value| value.is_i32())
}

/// A function of the contract in words.
pub(crate) fn expected(contract: &Function) -> String {
    let parameters = vec!["i32"; contract.parameters.len()].join(", ");
    let result = if contract.result.is_empty() { "" } else { "i32" };
    format!("a function ({parameters}) -> ({result})")
}

/// A module's function in the same words.
pub(crate) fn describe(function: &FuncType) -> String {
    let list = |values: &mut dyn Iterator<Item = wasmtime::ValType>| {
        values.map(|value| value.to_string()).collect::<Vec<_>>().join(", ")
    };
    let parameters = list(&mut function.params());
    let results = list(&mut function.results());
    format!("a function ({parameters}) -> ({results})")
}

/// What an export or import is, if it is no function.
pub(crate) fn kind(found: &ExternType) -> &'static str {
    match found {
        ExternType::Func(_) => "a function",
        ExternType::Global(_) => "a global",
        ExternType::Table(_) => "a table",
        ExternType::Memory(_) => "a memory",
        ExternType::Tag(_) => "a tag",
    }
}
