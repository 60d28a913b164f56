"""Hand-ins: marks notebooks with answers, for `python -m tf_mamba_edu check` and `progress`.

`notebooks` finds and reads them, `sheets` knows their exercises, `runner` runs them, each in a
`process` of its own, whose code is the `worker`, and in a copy of its folder (`copies`); `marks`
says what came of it, and `report` and `progress` show it.
"""
