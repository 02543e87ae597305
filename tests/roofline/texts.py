"""HLO text of known content, for the tests of what is read from it."""

import textwrap


def loop_text(name: str, start: int, stop: int, step: int, direction: str = "LT") -> str:
    """A loop around a permute of 64 bytes, its counter as a TPU compiler prints one."""
    return textwrap.dedent(f"""
        %{name} (p.1: (s32[], f32[16])) -> (s32[], f32[16]) {{
          %p.1 = (s32[]{{:T(128)}}, f32[16]{{0:T(128)}}) parameter(0)
          %i = s32[]{{:T(128)}} get-tuple-element(%p.1), index=0
          %copied = s32[]{{:T(128)S(6)}} copy(%i)
          %one = s32[]{{:T(128)}} constant({step})
          %next = s32[]{{:T(128)}} add(%copied, %one), metadata={{op_name="while/body/add"}}
          %x = f32[16]{{0:T(128)}} get-tuple-element(%p.1), index=1
          %cp = f32[16]{{0:T(128)}} collective-permute(%x), source_target_pairs={{{{0,1}},{{1,0}}}}
          ROOT %out = (s32[]{{:T(128)}}, f32[16]{{0:T(128)}}) tuple(%next, %cp)
        }}

        %cond (p.2: (s32[], f32[16])) -> pred[] {{
          %p.2 = (s32[]{{:T(128)}}, f32[16]{{0:T(128)}}) parameter(0)
          %stop = s32[]{{:T(128)}} constant({stop})
          %j = s32[]{{:T(128)}} get-tuple-element(%p.2), index=0
          ROOT %lt = pred[]{{:T(512)}} compare(%j, %stop), direction={direction}
        }}

        ENTRY %main (a: f32[16]) -> f32[16] {{
          %a = f32[16]{{0:T(128)}} parameter(0)
          %start = s32[]{{:T(128)}} constant({start})
          %start.copy = s32[]{{:T(128)}} copy(%start)
          %init = (s32[]{{:T(128)}}, f32[16]{{0:T(128)}}) tuple(%start.copy, %a)
          %w = (s32[]{{:T(128)}}, f32[16]{{0:T(128)}}) while(%init), condition=%cond, body=%{name}
          ROOT %r = f32[16]{{0:T(128)}} get-tuple-element(%w), index=1
        }}
    """)
