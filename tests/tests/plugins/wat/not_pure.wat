;; Says that it is pure and takes turns.
(module
  (memory (export "memory") 2)
  (func (export "wvs_abi") (result i32) (i32.const 0x10000))
  (func (export "wvs_region") (param $kind i32) (param $size i32) (result i32)
    (i32.mul (i32.const 4096) (i32.add (i32.const 1) (local.get $kind))))
  (global $turn (mut i32) (i32.const 0))
  (func (export "wvs_caps") (result i32) (i32.const 2))
  (func (export "wvs_schedule") (param $n i32) (result i32)
    (global.set $turn (i32.add (global.get $turn) (i32.const 1)))
    (i32.rem_u (global.get $turn) (local.get $n))))
