"""Optional refiners of the dynamic maps, one file each."""
