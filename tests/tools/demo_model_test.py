#!/usr/bin/env python3
"""Tests of tools/demo_model that need no training: words, scenes, texts, tokenizer, judge, layouts.

What needs numpy, Pillow, fontTools and the emoji font, or torch, is skipped where they are missing.
"""

import json
import os
import random
import sys
import tempfile
import unittest

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path.insert(0, os.path.join(ROOT, "tools", "demo_model"))

import bpe  # noqa: E402
import captions  # noqa: E402
import scenes  # noqa: E402
import tasks  # noqa: E402
import words  # noqa: E402
from scenes import Item, make_scene  # noqa: E402

try:
    import numpy
    import glyphs
    import judge
    import sprites

    HAVE_SPRITES = os.path.exists(glyphs.FONT)
except ImportError:
    HAVE_SPRITES = False
try:
    import torch
    import autoencoder
    import export
    import model_files
    import nvfp4
    import render
    import sequences
    import tables
    import train_autoencoder
    import trunk

    HAVE_TORCH = True
except ImportError:
    HAVE_TORCH = False

DEMO = os.path.join(ROOT, "models", "demo")


def item(name, place, large=False):
    return Item(words.INDEX[name], place, large)


class WordsTest(unittest.TestCase):
    def test_objects_are_those_of_the_model(self):
        with open(os.path.join(DEMO, "words.json"), encoding="utf-8") as file:
            known = json.load(file)
        self.assertEqual(words.NAMES[:-1], known["objects"])
        self.assertEqual(words.PLURALS[:-1], known["plural"])
        self.assertEqual(sorted(words.PLACES), sorted(known["places"]))
        self.assertEqual(list(words.BACKGROUNDS), known["backgrounds"])

    def test_no_emoji_twice(self):
        self.assertEqual(len({emoji for emoji, _, _ in words.OBJECTS}), len(words.OBJECTS))

    def test_articles_go_by_sound(self):
        for name, said in (
            ("axe", "an axe"),
            ("hourglass", "an hourglass"),
            ("unicorn", "a unicorn"),
            ("ufo", "a ufo"),
            ("umbrella", "an umbrella"),
            ("sushi", "sushi"),
            ("house", "a house"),
        ):
            self.assertEqual(words.one_of(words.INDEX[name]), said)

    def test_places_keep_the_latent_phase(self):
        for height, width in words.SIZES:
            for place in words.PLACES:
                for value in words.place_pixels(place, height, width):
                    self.assertEqual(value % 16, 0)
        self.assertEqual(words.place_pixels("bottom right", 256, 384), (320, 192))

    def test_large_objects_stay_in_the_centre(self):
        with self.assertRaises(ValueError):
            words.place_pixels("left", 256, 256, words.LARGE)


class ScenesTest(unittest.TestCase):
    def test_sprites_never_overlap(self):
        for height, width in words.SIZES:
            for count in (1, 2, 3, 4):
                for places in scenes.place_sets(count, height, width):
                    for a in places:
                        for b in places:
                            self.assertTrue(a == b or not words.places_clash(a, b, height, width))

    def test_training_and_tests_share_no_pair(self):
        rng = random.Random(3)
        training, unseen = scenes.SceneSampler(rng), scenes.SceneSampler(rng, held_out=True)
        for _ in range(300):
            _, scene = captions.sample_prompt(training, [])
            self.assertFalse(scenes.is_held_out(scene))
            _, scene = captions.sample_prompt(unseen, [])
            self.assertTrue(scenes.is_held_out(scene))

    def test_one_pair_in_forty_is_held_out(self):
        listed = scenes._listed_pairs()
        places = [place for place in words.PLACES if place != "centre"]
        pairs = [(i, p) for i, name in enumerate(words.NAMES) for p in places if (name, p) not in listed]
        share = sum(scenes.pair_is_held_out(*pair) for pair in pairs) / len(pairs)
        self.assertAlmostEqual(share, 1 / 40, delta=0.006)

    def test_the_bundled_requests_are_held_out_and_large_objects_never(self):
        self.assertTrue(scenes.pair_is_held_out(words.INDEX["pretzel"], "top left"))
        self.assertTrue(scenes.pair_is_held_out(words.INDEX["pretzel"], "yellow"))
        for name in ("prompts", "edits"):
            with open(os.path.join(DEMO, "expected", name + ".json"), encoding="utf-8") as file:
                for entry in json.load(file):
                    items = [Item(words.INDEX[one["name"]], one["place"], one["large"]) for one in entry["objects"]]
                    self.assertTrue(scenes.is_held_out(make_scene(entry["background"], items)), entry)
        for index in range(len(words.NAMES)):
            self.assertFalse(scenes.pair_is_held_out(index, "centre"))


class TextsTest(unittest.TestCase):
    def test_descriptions(self):
        scene = make_scene(
            "light green", [item("fountain", "bottom right"), item("glasses", "left"), item("shield", "top right")]
        )
        self.assertEqual(
            tasks.describe_answer(scene),
            "a shield in the top right, glasses on the left and a fountain in "
            "the bottom right, on a light green background",
        )
        self.assertEqual(
            tasks.describe_answer(make_scene("white", [item("cookie", "centre")])), "a cookie on a white background"
        )
        self.assertEqual(
            tasks.describe_answer(make_scene("orange", [item("sushi", "centre", True)])),
            "big sushi on an orange background",
        )

    def test_prompts_name_everything(self):
        sampler = scenes.SceneSampler(random.Random(5))
        for _ in range(500):
            prompt, scene = captions.sample_prompt(sampler, [])
            lower = prompt.lower()
            for one in scene.items:
                plural = words.PLURALS[one.index]
                self.assertTrue(words.NAMES[one.index] in lower or (plural and plural in lower), prompt)
            if scene.background not in ("white", "grey"):
                self.assertIn(scene.background, lower)

    def test_unknown_names_are_drawn_as_question_marks(self):
        sampler = scenes.SceneSampler(random.Random(6))
        seen = 0
        for _ in range(1000):
            prompt, scene = captions.sample_prompt(sampler, ["zeppelin"])
            has = any(one.index == words.UNKNOWN_INDEX for one in scene.items)
            self.assertEqual(has, "zeppelin" in prompt.lower(), prompt)
            seen += has
        self.assertGreater(seen, 10)

    def test_edits_do_what_they_say(self):
        sampler = scenes.SceneSampler(random.Random(7))
        for kind, _ in tasks.EDIT_KINDS:
            for _ in range(60):
                made, text, source, target = tasks.sample_edit(sampler, kind)
                self.assertEqual(made, kind)
                before, after = set(source.items), set(target.items)
                change = {
                    "replace": (1, 1),
                    "background": (0, 0),
                    "remove": (1, 0),
                    "move": (1, 1),
                    "add": (0, 1),
                    "swap": (2, 2),
                }[kind]
                self.assertEqual((len(before - after), len(after - before)), change, text)
                self.assertEqual(source.background != target.background, kind == "background")
                places = [one.place for one in target.items]
                self.assertEqual(len(set(places)), len(places))

    def test_answers_follow_from_the_scene(self):
        scene = make_scene("red", [item("bee", "top left"), item("bus", "bottom right"), item("bus", "top right")])
        sampler = scenes.SceneSampler(random.Random(8))
        for _ in range(100):
            kind, question, answer = tasks.sample_question(sampler, scene)
            if kind == "where":
                self.assertEqual((question.lower(), answer), ("where is the bee?", "in the top left"))
            elif kind == "count":
                self.assertEqual(answer, "three")
            elif kind == "colour":
                self.assertEqual(answer, "red")
            elif kind == "exist":
                self.assertEqual(answer == "yes", "bee" in question or " bus" in question)


class TokenizerTest(unittest.TestCase):
    def test_agrees_with_the_goldens(self):
        tokenizer = bpe.Tokenizer.load(os.path.join(DEMO, "Lance_3B-NVFP4"))
        with open(os.path.join(DEMO, "golden", "t2i_256x256.json"), encoding="utf-8") as file:
            case = json.load(file)
        expected = [token for token, count in case["token_ids"] for _ in range(count)]
        got = tokenizer.prefix(bpe.SYSTEM["generate"]) + tokenizer.encode(case["prompt"]) + tokenizer.suffix()
        self.assertEqual(got, expected[: len(got)])
        self.assertEqual(expected[len(got)], tokenizer.vision_start)
        with open(os.path.join(DEMO, "golden", "edit_256res.json"), encoding="utf-8") as file:
            edit = json.load(file)["token_ids"]
        prefix = tokenizer.prefix(bpe.SYSTEM["edit"])
        self.assertEqual([token for token, _ in edit[: len(prefix)]], prefix)

    def test_training_and_round_trip(self):
        sampler = scenes.SceneSampler(random.Random(9))
        texts = [captions.sample_prompt(sampler, [])[0] for _ in range(300)]
        vocab, merges = bpe.train(texts + list(bpe.SYSTEM.values()), 400)
        self.assertEqual((len(vocab), len(merges)), (400, 144))
        with tempfile.TemporaryDirectory() as folder:
            bpe.write_files(folder, vocab, merges)
            tokenizer = bpe.Tokenizer.load(folder)
        for text in texts[:50] + ["the user\u2019s 12 cats  and\n\na dog", "na\u00efve"]:
            self.assertEqual(tokenizer.decode(tokenizer.encode(text)), text)
        self.assertLess(len(tokenizer.encode(texts[0])), len(texts[0]) / 2)


@unittest.skipUnless(HAVE_SPRITES, "needs numpy, Pillow, fontTools and fonts-noto-color-emoji")
class JudgeTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.bank = sprites.SpriteBank()

    def test_ideal_pictures_are_right(self):
        for scene in (
            make_scene("white", [item("die", "centre", True)]),
            make_scene("blue", [item("cat", "top left"), item("dog", "bottom right")], 256, 384),
        ):
            verdict = judge.judge_picture(self.bank.draw(scene), scene, self.bank)
            self.assertTrue(verdict.right)
            self.assertEqual(verdict.psnr, 99.0)

    def test_faults_are_found(self):
        asked = make_scene("pink", [item("cat", "left"), item("bus", "right")])
        other = make_scene("pink", [item("cat", "left"), item("taxi", "right")])
        verdict = judge.judge_picture(self.bank.draw(other), asked, self.bank)
        self.assertEqual((verdict.objects, verdict.seen), (False, ("cat", "taxi")))
        colour = make_scene("purple", asked.items)
        self.assertFalse(judge.judge_picture(self.bank.draw(colour), asked, self.bank).background)
        picture = self.bank.draw(asked)
        picture[:40, 100:160] = (0, 0, 0)
        verdict = judge.judge_picture(picture, asked, self.bank)
        self.assertTrue(verdict.objects and verdict.background)
        self.assertFalse(verdict.right)

    def test_expected_pictures_of_the_model_are_drawn_alike(self):
        with open(os.path.join(DEMO, "expected", "prompts.json"), encoding="utf-8") as file:
            entry = json.load(file)[2]
        scene = make_scene(entry["background"], [item(o["name"], o["place"], o["large"]) for o in entry["objects"]])
        picture = numpy.array(glyphs.Image.open(os.path.join(DEMO, "expected", entry["picture"])).convert("RGB"))
        self.assertGreater(judge.judge_picture(picture, scene, self.bank).psnr, 50)


@unittest.skipUnless(HAVE_TORCH, "needs torch")
class LayoutTest(unittest.TestCase):
    def test_positions_of_an_edit(self):
        """The worked example of the public model's documentation: PRE of 64, vision 8 x 8, latents 16 x 16, 4 words."""
        template = sequences.Template(range(64), (1, 2), [9], latent=(16, 16), vision=(8, 8), condition=True)
        ids = template.positions(torch.tensor([4]), 5)[0].tolist()
        und, gen = ids[: template.und], ids[template.und :]
        self.assertEqual(und[64:66], [[1000, 64, 64], [1001, 65, 65]])
        self.assertEqual(und[129], [1009, 73, 73])
        self.assertEqual(und[130:132], [[74] * 3, [91] * 3])
        self.assertEqual(und[132], [92] * 3)
        self.assertEqual(und[141:143], [[74] * 3, [91] * 3])
        self.assertEqual((gen[0], gen[255], gen[256]), ([75] * 3, [75, 90, 90], [75] * 3))

    def test_positions_without_a_caption(self):
        template = sequences.Template(range(34), (1, 2), [7], latent=(16, 16))
        with_caption, without = template.positions(torch.tensor([2, 0]), 5).tolist()
        self.assertEqual(with_caption[41], [41] * 3)
        self.assertEqual(with_caption[template.und], [42] * 3)
        self.assertEqual(without[41], [39] * 3)
        self.assertEqual(without[36], [36] * 3)  # POST stays at its conditional ids

    def test_visibility(self):
        template = sequences.Template(range(3), (1, 2), [2, 2], vision=(2, 2))
        mask = template.mask
        first, second = template.texts
        self.assertFalse(mask[first.start, second.start] or mask[second.start, first.start])
        self.assertTrue(mask[second.start + 1, second.start] and not mask[second.start, second.start + 1])
        self.assertTrue(mask[3, 8] and mask[8, 3] and not mask[0, 3])
        edit = sequences.Template(range(3), (1, 2), [2], latent=(2, 2), vision=(2, 2), condition=True)
        target, text = edit.und + edit.target.start, edit.texts[0].start
        self.assertTrue(edit.mask[target, text] and edit.mask[target, edit.und] and edit.mask[text, edit.und])
        self.assertFalse(edit.mask[text, target] or edit.mask[edit.und, target])

    def test_rotary_frequencies_are_rounded(self):
        cos, _ = tables.rotary(torch.tensor([[1000, 0, 0]]))
        angle = 1000 * torch.tensor(0.8046875)  # bf16 of 1e6^(-1/64)
        self.assertEqual(float(cos[0, 1]), float(angle.cos().to(torch.bfloat16)))

    def test_folding_the_autoencoder(self):
        """What is exported has latents of unit deviation, and exporting leaves the averages as they are."""
        torch.manual_seed(3)
        trainer = object.__new__(train_autoencoder.Trainer)
        trainer.device = torch.device("cpu")
        trainer.model = autoencoder.Autoencoder(4, 4).eval()
        trainer.average = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
        trainer.latent_mean = torch.linspace(-1, 1, autoencoder.CHANNELS)
        trainer.latent_variance = torch.linspace(0.2, 3, autoencoder.CHANNELS)
        trainer.folded()
        folded = autoencoder.Autoencoder(4, 4).eval()
        folded.load_state_dict({name: value.float() for name, value in trainer.folded().items()})
        pixels = torch.rand(1, 3, 64, 64) * 2 - 1
        with torch.no_grad():
            raw = trainer.model.moments(pixels)[0]
            shape = (1, -1, 1, 1)
            latents = (raw - trainer.latent_mean.view(shape)) / trainer.latent_variance.sqrt().view(shape)
            copy = autoencoder.unpatchify(trainer.model.decoder(trainer.model.conv2(latents)))
            # The file is in bf16; folding twice would be off by the size of the latents themselves.
            self.assertLess(float((folded.encode(pixels) - latents).abs().max()), 0.1)
            self.assertLess(float((folded.decode(latents) - copy).square().mean() / copy.square().mean()), 1e-3)

    def test_rounded_weights_are_what_four_bits_hold(self):
        torch.manual_seed(5)
        weight = torch.randn(32, 64) * 0.05
        rounded = nvfp4.rounded(weight)
        self.assertTrue(torch.equal(nvfp4.rounded(rounded), rounded))
        error = float((rounded - weight).norm() / weight.norm())
        self.assertTrue(0.05 < error < 0.12, error)
        packed, scales = export.quantise(rounded)
        self.assertTrue(torch.equal(model_files.dequantise(packed, scales.to(torch.bfloat16)), rounded))

    def test_rounding_leaves_gradients_as_they_are(self):
        linear = trunk.Linear(32, 16)
        x = torch.randn(3, 32)
        plain = linear(x)
        linear.rounding = torch.ones(())
        rounded = linear(x)
        self.assertFalse(torch.equal(rounded, plain))
        rounded.sum().backward()
        self.assertTrue(torch.allclose(linear.weight.grad, x.sum(0).expand(16, 32)))
        self.assertNotIn("rounding", linear.state_dict())

    @unittest.skipUnless(HAVE_SPRITES, "needs the emoji font")
    def test_both_renderers_agree(self):
        font = glyphs.EmojiFont()
        bank = sprites.SpriteBank(font)
        characters = [emoji for emoji, _, _ in words.OBJECTS]

        class SmallAtlas:
            glyphs = torch.stack([torch.from_numpy(numpy.array(font.glyph(c))) for c in characters[:40]])

        renderer = render.Renderer(SmallAtlas, torch.device("cpu"))
        drawn = [
            make_scene("green", [Item(3, "top left"), Item(17, "right")], 256, 384),
            make_scene("yellow", [Item(9, "centre", True)], 256, 384),
        ]
        pictures = renderer.draw(*render.scene_arrays(drawn), 256, 384)
        for picture, scene in zip(pictures, drawn):
            levels = (picture.permute(1, 2, 0) * 255).round().numpy().astype(numpy.uint8)
            self.assertGreater(judge.psnr(levels, bank.draw(scene)), 48)


if __name__ == "__main__":
    unittest.main()
