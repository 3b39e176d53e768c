"""The scene and the splat for other programs: `scenes` writes cameras, images, points and masks in their layouts,
`splats` other files than PLY, `command` is `das3r export`."""
