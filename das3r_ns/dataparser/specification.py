"""The dataparser as nerfstudio finds it by entry point.

On its own, because nerfstudio looks for dataparsers in the middle of importing its data managers: a module that needs
those, as the methods in `das3r_ns.config` do, would be imported half-way in a circle. It is the first module of this
package that `ns-train` imports: what the machine lacks is said here, before the rest of nerfstudio is imported.
"""

import sys

from nerfstudio.plugins.registry_dataparser import DataParserSpecification

from das3r_ns.machine.at_start import check_at_start

check_at_start(sys.argv)

from das3r_ns.dataparser.parser import Das3rDataParserConfig  # noqa: E402  (the check does not wait for it)

das3r_data = DataParserSpecification(
    config=Das3rDataParserConfig(),
    description="A video, a folder of images, or a scene folder written by `das3r predict`.",
)
