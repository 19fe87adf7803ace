;; The request would start at an address that is no multiple of 8.
(module
  (memory (export "memory") 2)
  (func (export "wvs_abi") (result i32) (i32.const 0x10000))
  (func (export "wvs_region") (param $kind i32) (param $size i32) (result i32)
    (i32.const 4100))
  (func (export "wvs_schedule") (param $n i32) (result i32) (i32.const 0)))
