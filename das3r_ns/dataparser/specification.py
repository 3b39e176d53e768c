"""The dataparser as nerfstudio finds it by entry point.

On its own, because nerfstudio looks for dataparsers in the middle of importing its data managers: a module that needs
those, as the methods in `das3r_ns.config` do, would be imported half-way in a circle.
"""

from nerfstudio.plugins.registry_dataparser import DataParserSpecification

from das3r_ns.dataparser.parser import Das3rDataParserConfig

das3r_data = DataParserSpecification(
    config=Das3rDataParserConfig(),
    description="A video, a folder of pictures, or a scene folder written by `das3r predict`.",
)
