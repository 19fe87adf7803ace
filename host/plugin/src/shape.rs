//! What a module may look like and import, so that compiling it takes no time out of proportion to its octets.

use wasmparser::{BlockType, ElementItems, FuncType, FunctionBody, Operator, Parser, Payload};

use crate::error::LoadError;
use crate::imports;
use crate::limits::{
    BLOCK_VALUES_MAX, ELEMENTS_MAX, FUNCTIONS_MAX, GLOBALS_MAX, INDIRECT_CALLS_MAX,
    LOCALS_IN_BLOCKS_MAX, LOCALS_MAX, NESTING_MAX, RESULTS_MAX,
};

/// Whether a module imports only what is offered and is within the limits that bound the compiler's work.
/// Cost: one pass over the octets. The module need not be valid; what is read of it is.
pub(crate) fn check_shape(octets: &[u8], body_max: usize) -> Result<(), LoadError> {
    let mut types = Vec::new();
    // The type of each of the module's own functions.
    let mut declared = Vec::new();
    let mut function = 0;
    let (mut elements, mut locals_in_blocks, mut indirect_calls) = (0_usize, 0_usize, 0_usize);
    for payload in Parser::new(0).parse_all(octets) {
        match payload.map_err(invalid)? {
            Payload::TypeSection(section) => {
                for found in section.into_iter_err_on_gc_types() {
                    let found = found.map_err(invalid)?;
                    at_most("results of a function", found.results().len(), RESULTS_MAX)?;
                    types.push(found);
                }
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import.map_err(invalid)?;
                    if !imports::is_offered(import.module, import.name) {
                        let (module, name) = (import.module.to_owned(), import.name.to_owned());
                        return Err(LoadError::Import { module, name });
                    }
                }
            }
            Payload::FunctionSection(section) => {
                let functions = section.count() as usize;
                if functions > FUNCTIONS_MAX {
                    return Err(LoadError::TooManyFunctions { functions, limit: FUNCTIONS_MAX });
                }
                for index in section {
                    declared.push(index.map_err(invalid)?);
                }
            }
            Payload::GlobalSection(section) => {
                at_most("variables", section.count() as usize, GLOBALS_MAX)?;
            }
            Payload::ElementSection(section) => {
                for element in section {
                    elements += match element.map_err(invalid)?.items {
                        ElementItems::Functions(functions) => functions.count(),
                        ElementItems::Expressions(_, expressions) => expressions.count(),
                    } as usize;
                    at_most("entries for tables", elements, ELEMENTS_MAX)?;
                }
            }
            Payload::CodeSectionEntry(body) => {
                let octets = body.range().len();
                if octets > body_max {
                    let limit = body_max;
                    return Err(LoadError::FunctionTooLarge { function, octets, limit });
                }
                let own = declared.get(function).and_then(|index| types.get(*index as usize));
                let locals = check_locals(function, own, &body)?;
                let blocks = check_blocks(function, &types, &body, &mut indirect_calls)?;
                locals_in_blocks = locals_in_blocks.saturating_add(locals.saturating_mul(blocks));
                at_most("locals times blocks", locals_in_blocks, LOCALS_IN_BLOCKS_MAX)?;
                function += 1;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether there are no more of `what` in the module than allowed.
fn at_most(what: &'static str, found: usize, limit: usize) -> Result<(), LoadError> {
    if found > limit { Err(LoadError::TooMany { what, found, limit }) } else { Ok(()) }
}

fn check_locals(
    function: usize,
    own: Option<&FuncType>,
    body: &FunctionBody<'_>,
) -> Result<usize, LoadError> {
    let mut locals = own.map_or(0, |own| own.params().len());
    for declaration in body.get_locals_reader().map_err(invalid)? {
        let (count, _) = declaration.map_err(invalid)?;
        locals = locals.saturating_add(count as usize);
    }
    if locals > LOCALS_MAX {
        return Err(LoadError::TooManyLocals { function, locals, limit: LOCALS_MAX });
    }
    Ok(locals)
}

fn check_blocks(
    function: usize,
    types: &[FuncType],
    body: &FunctionBody<'_>,
    indirect_calls: &mut usize,
) -> Result<usize, LoadError> {
    let (mut depth, mut values, mut blocks) = (0_usize, 0_usize, 1_usize);
    for operator in body.get_operators_reader().map_err(invalid)? {
        let blockty = match operator.map_err(invalid)? {
            Operator::Block { blockty } | Operator::Loop { blockty } | Operator::If { blockty } => {
                blockty
            }
            Operator::CallIndirect { .. } => {
                *indirect_calls += 1;
                at_most("calls through tables", *indirect_calls, INDIRECT_CALLS_MAX)?;
                continue;
            }
            Operator::End => {
                depth = depth.saturating_sub(1);
                continue;
            }
            _ => continue,
        };
        depth += 1;
        blocks += 1;
        if depth > NESTING_MAX {
            return Err(LoadError::NestedTooDeep { function, depth, limit: NESTING_MAX });
        }
        if let BlockType::FuncType(index) = blockty
            && let Some(block) = types.get(index as usize)
        {
            values += block.params().len() + block.results().len();
        }
        if values > BLOCK_VALUES_MAX {
            let limit = BLOCK_VALUES_MAX;
            return Err(LoadError::TooManyBlockValues { function, values, limit });
        }
    }
    Ok(blocks)
}

fn invalid(error: wasmparser::BinaryReaderError) -> LoadError {
    LoadError::Invalid(error.to_string())
}
