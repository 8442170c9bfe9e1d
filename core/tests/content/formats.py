"""Writes files of many formats into the folder it is given, and prints what each is, as JSON: its path, the name it has
on somebody's machine, what clients declare it as, and what is to be found out of it when nothing is declared."""

import bz2, gzip, io, json, lzma, os, pickle, plistlib, sqlite3, struct, sys, tarfile, wave, zipfile, zlib

folder = sys.argv[1]
made = []


def add(name, content, declared, found):
    path = os.path.join(folder, f"{len(made):03}-{name}")
    with open(path, "wb") as file:
        file.write(content if isinstance(content, bytes) else content.encode())
    made.append({"path": path, "name": name, "declared": declared, "found": found})


# Images.
def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


ihdr = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 8, 2, 0, 0, 0))
idat = chunk(b"IDAT", zlib.compress(b"\0" + b"\xff\0\0" * 2 + b"\0" + b"\0\xff\0" * 2))
png = b"\x89PNG\r\n\x1a\n" + ihdr + idat + chunk(b"IEND", b"")
jpeg = b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0\xff\xdb\0C\0" + bytes(range(1, 65)) + b"\xff\xd9"
exif = b"\xff\xd8\xff\xe1\0\x16Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0\xff\xd9"
gif = b"GIF89a\x01\0\x01\0\x80\0\0\xff\xff\xff\0\0\0!\xf9\x04\x01\0\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;"
webp = b"RIFF\x24\0\0\0WEBPVP8 \x18\0\0\0\x30\x01\0\x9d\x01\x2a\x01\0\x01\0\x02\0\x34\x25\xa4\0\x03p\0\xfe\xfb\x94\0\0"
bmp = b"BM" + struct.pack("<IHHI", 58, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 1, 1, 1, 24, 0, 4, 0, 0, 0, 0) + b"\0\0\xff\0"
tiff = b"II*\0\x08\0\0\0" + struct.pack("<H", 1) + struct.pack("<HHII", 256, 3, 1, 1) + b"\0\0\0\0"
dng = b"II*\0\x08\0\0\0" + struct.pack("<H", 1) + struct.pack("<HHI4s", 50706, 1, 4, b"\x01\x04\0\0") + b"\0\0\0\0"
ico = b"\0\0\x01\0\x01\0\x01\x01\0\0\x01\0\x20\0" + struct.pack("<II", len(png), 22) + png


def box(kind, *data):
    data = b"".join(data)
    return struct.pack(">I", len(data) + 8) + kind + data


def iso(*brands):
    return box(b"ftyp", brands[0], b"\0\0\0\0", *brands) + box(b"mdat", b"\0" * 32)


add("a.png", png, ["image/png", "image/x-png"], "image/png")
add("IMG_1.JPG", jpeg, ["image/jpeg", "image/jpg", "image/pjpeg"], "image/jpeg")
add("DSC_1.jpeg", exif, ["image/jpeg"], "image/jpeg")
add("a.gif", gif, ["image/gif"], "image/gif")
add("a.webp", webp, ["image/webp"], "image/webp")
add("a.bmp", bmp, ["image/bmp", "image/x-ms-bmp", "image/x-windows-bmp"], "image/bmp")
add("a.tif", tiff, ["image/tiff", "image/tif"], "image/tiff")
add("a.dng", dng, ["image/x-adobe-dng", "image/dng", "image/tiff"], "image/x-adobe-dng")
add("favicon.ico", ico, ["image/x-icon", "image/vnd.microsoft.icon"], None)
add("IMG_2.HEIC", iso(b"heic", b"mif1", b"heic"), ["image/heic", "image/heif"], "image/heic")
add("IMG_3.heif", iso(b"mif1", b"heic"), ["image/heif", "image/heic"], "image/heic")
add("a.avif", iso(b"avif", b"mif1", b"miaf"), ["image/avif"], "image/avif")
add("a.jp2", b"\0\0\0\x0cjP  \r\n\x87\n" + box(b"ftyp", b"jp2 ", b"\0\0\0\0", b"jp2 "), ["image/jp2", "image/jpx"], None)
add("a.jxl", b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl \0\0\0\0jxl ", ["image/jxl"], "image/jxl")
add("a.psd", b"8BPS\0\x01" + b"\0" * 20, ["image/vnd.adobe.photoshop", "application/x-photoshop", "image/x-photoshop"], "image/vnd.adobe.photoshop")
add("drawn.svg", "<!-- Generator: by hand -->\n<svg xmlns='http://www.w3.org/2000/svg'/>", ["image/svg+xml"], "image/svg+xml")
add("declared.svg", "<?xml version='1.0'?>\n<!DOCTYPE svg PUBLIC '-//W3C//DTD SVG 1.1//EN' 'x'>\n<svg/>", ["image/svg+xml"], "image/svg+xml")
add("a.svgz", gzip.compress(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), ["image/svg+xml", "image/svg+xml-compressed"], None)
add("a.ppm", b"P6\n1 1\n255\n\0\xff\x01", ["image/x-portable-pixmap"], "image/x-portable-pixmap")
add("a.xcf", b"gimp xcf v011\0" + b"\0" * 32, ["image/x-xcf"], "image/x-xcf")

# Sound and moving pictures.
sound = io.BytesIO()
with wave.open(sound, "wb") as file:
    file.setnchannels(1), file.setsampwidth(2), file.setframerate(8000), file.writeframes(b"\0\1" * 100)
add("a.wav", sound.getvalue(), ["audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave"], None)
add("tagged.mp3", b"ID3\x04\0\0\0\0\0\x0bTIT2\0\0\0\1\0\0\0" + b"\xff\xfb\x90\x64" + b"\0" * 413, ["audio/mpeg", "audio/mp3"], "audio/mpeg")
add("bare.mp3", b"\xff\xfb\x90\x64" + b"\0" * 413, ["audio/mpeg", "audio/mp3"], "audio/mpeg")
add("a.flac", b"fLaC\0\0\0\x22" + b"\0" * 34, ["audio/flac", "audio/x-flac"], "audio/flac")
add("a.ogg", b"OggS\0\2" + b"\0" * 20 + b"\1\x1e\1vorbis" + b"\0" * 22, ["audio/ogg", "application/ogg", "video/ogg"], None)
add("a.opus", b"OggS\0\2" + b"\0" * 20 + b"\1\x13OpusHead\1\2" + b"\0" * 9, ["audio/ogg", "audio/opus"], None)
add("a.m4a", iso(b"M4A ", b"mp42", b"isom"), ["audio/mp4", "audio/x-m4a", "audio/m4a"], None)
add("a.mp4", iso(b"isom", b"iso2", b"avc1", b"mp41"), ["video/mp4", "application/mp4"], "video/mp4")
add("a.mov", iso(b"qt  "), ["video/quicktime"], "video/quicktime")
add("a.3gp", iso(b"3gp4", b"isom"), ["video/3gpp", "audio/3gpp"], "video/3gpp")
ebml = lambda kind: b"\x1aE\xdf\xa3\x93\x42\x82" + bytes([0x80 | len(kind)]) + kind + b"\x42\x87\x81\1" + b"\0" * 32
add("a.webm", ebml(b"webm"), ["video/webm", "audio/webm"], None)
add("a.mkv", ebml(b"matroska"), ["video/x-matroska", "video/matroska"], None)
add("a.avi", b"RIFF\x40\0\0\0AVI LIST\x34\0\0\0hdrlavih" + b"\0" * 40, ["video/x-msvideo", "video/avi", "video/msvideo"], None)
add("a.flv", b"FLV\1\5\0\0\0\x09\0\0\0\0", ["video/x-flv"], "video/x-flv")
add("a.mid", b"MThd\0\0\0\6\0\0\0\1\0\x60MTrk\0\0\0\4\0\xff\x2f\0", ["audio/midi", "audio/mid", "audio/x-midi"], None)
add("a.aiff", b"FORM\0\0\0\x2eAIFFCOMM\0\0\0\x12" + b"\0" * 18, ["audio/aiff", "audio/x-aiff"], None)

# Archives.
def archive(**files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            how = zipfile.ZIP_STORED if name == "mimetype" else zipfile.ZIP_DEFLATED
            file.writestr(name, content, how)
    return out.getvalue()


tar = io.BytesIO()
with tarfile.open(fileobj=tar, mode="w") as file:
    info = tarfile.TarInfo("a.txt")
    info.size = 5
    file.addfile(info, io.BytesIO(b"hello"))
tar = tar.getvalue()
add("a.zip", archive(**{"a.txt": "hello"}), ["application/zip", "application/x-zip-compressed", "application/x-zip"], "application/zip")
add("a.tar", tar, ["application/x-tar", "application/x-compressed"], "application/x-tar")
add("a.tar.gz", gzip.compress(tar), ["application/gzip", "application/x-gzip", "application/x-compressed-tar", "application/x-tgz"], "application/gzip")
add("a.tgz", gzip.compress(tar), ["application/x-compressed", "application/x-gzip"], None)
add("a.csv.bz2", bz2.compress(b"a,b\n" * 99), ["application/x-bzip2", "application/x-bzip"], None)
add("a.xz", lzma.compress(b"hello"), ["application/x-xz", "application/x-xz-compressed-tar"], "application/x-xz")
add("a.zst", b"\x28\xb5\x2f\xfd\x04\x58\x29\0\0hello\x8a\x3c", ["application/zstd", "application/x-zstd"], "application/zstd")
add("a.7z", b"7z\xbc\xaf\x27\x1c\0\4" + b"\0" * 24, ["application/x-7z-compressed", "application/x-compressed"], "application/x-7z-compressed")
add("a.rar", b"Rar!\x1a\7\1\0" + b"\0" * 16, ["application/vnd.rar", "application/x-rar-compressed", "application/x-compressed"], "application/vnd.rar")
add("a.deb", b"!<arch>\ndebian-binary   1700000000  0     0     100644  4         `\n2.0\n\0\1", ["application/vnd.debian.binary-package", "application/x-debian-package", "application/x-deb"], None)
add("a.jar", archive(**{"META-INF/MANIFEST.MF": "Manifest-Version: 1.0\n"}), ["application/java-archive", "application/x-java-archive"], "application/java-archive")
add("a.apk", archive(**{"AndroidManifest.xml": "\3\0\x08\0", "classes.dex": "dex"}), ["application/vnd.android.package-archive"], "application/vnd.android.package-archive")
add("a.xpi", archive(**{"manifest.json": "{}"}), ["application/x-xpinstall"], None)

# Documents.
def office(folder, document):
    return archive(**{"[Content_Types].xml": "<Types/>", "_rels/.rels": "<Relationships/>", f"{folder}/{document}": "<x/>"})


ooxml = "application/vnd.openxmlformats-officedocument."
ole = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 16 + b"\x3e\0\3\0\xfe\xff\x09\0" + b"\0" * 480
add("a.docx", office("word", "document.xml"), [ooxml + "wordprocessingml.document", "application/msword"], ooxml + "wordprocessingml.document")
add("a.xlsx", office("xl", "workbook.xml"), [ooxml + "spreadsheetml.sheet", "application/vnd.ms-excel"], ooxml + "spreadsheetml.sheet")
add("a.pptx", office("ppt", "presentation.xml"), [ooxml + "presentationml.presentation"], ooxml + "presentationml.presentation")
add("a.xlsm", office("xl", "workbook.xml"), ["application/vnd.ms-excel.sheet.macroEnabled.12"], None)
add("locked.docx", ole, [ooxml + "wordprocessingml.document"], None)
add("a.doc", ole, ["application/msword"], "application/msword")
add("a.xls", ole, ["application/vnd.ms-excel", "application/excel"], "application/vnd.ms-excel")
add("a.msg", ole, ["application/vnd.ms-outlook"], None)
add("a.msi", ole, ["application/x-msi", "application/x-ole-storage"], None)
odf = "application/vnd.oasis.opendocument."
for end, kind in (("odt", "text"), ("ods", "spreadsheet"), ("odp", "presentation")):
    add(f"a.{end}", archive(mimetype=odf + kind, **{"content.xml": "<x/>"}), [odf + kind], odf + kind)
add("a.epub", archive(mimetype="application/epub+zip", **{"META-INF/container.xml": "<x/>"}), ["application/epub+zip"], "application/epub+zip")
add("a.kmz", archive(**{"doc.kml": "<kml/>"}), ["application/vnd.google-earth.kmz"], None)
add("a.3mf", archive(**{"[Content_Types].xml": "<x/>", "3D/3dmodel.model": "<x/>"}), ["model/3mf", "application/vnd.ms-package.3dmanufacturing-3dmodel+xml"], None)
pdf = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<</Type/Catalog>>\nendobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
add("a.pdf", pdf, ["application/pdf", "application/x-pdf"], "application/pdf")
add("plain.pdf", b"%PDF-1.4\n1 0 obj\n<</Type/Catalog>>\nendobj\n%%EOF\n", ["application/pdf"], "application/pdf")
add("a.ai", pdf, ["application/postscript", "application/illustrator"], None)
add("a.eps", "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", ["application/postscript", "image/x-eps"], None)
add("a.rtf", "{\\rtf1\\ansi hello}", ["application/rtf", "text/rtf", "application/msword"], None)
add("a.djvu", b"AT&TFORM\0\0\0\x20DJVUINFO" + b"\0" * 24, ["image/vnd.djvu", "image/x-djvu"], "image/vnd.djvu")

# Data.
database = os.path.join(folder, "database")
with sqlite3.connect(database) as connection:
    connection.execute("CREATE TABLE a (b)")
connection.close()
with open(database, "rb") as file:
    rows = file.read()
os.remove(database)
add("a.sqlite3", rows, ["application/vnd.sqlite3", "application/x-sqlite3"], "application/vnd.sqlite3")
add("a.gpkg", rows, ["application/geopackage+sqlite3", "application/x-sqlite3"], None)
add("a.parquet", b"PAR1\x15\0\x15\x10" + b"\0" * 32 + b"PAR1", ["application/vnd.apache.parquet", "application/x-parquet"], "application/vnd.apache.parquet")
add("a.h5", b"\x89HDF\r\n\x1a\n" + b"\0" * 40, ["application/x-hdf5", "application/x-hdf"], None)
add("a.plist", plistlib.dumps({"a": 1}, fmt=plistlib.FMT_BINARY), ["application/x-plist", "application/x-bplist"], None)
add("a.pickle", pickle.dumps({"a": 1}), ["application/x-pickle"], None)
add("a.npy", b"\x93NUMPY\1\0v\0{'descr': '<f8'}" + b" " * 80 + b"\0" * 8, ["application/x-npy"], None)
add("scan.dcm", b"\0" * 128 + b"DICM\2\0\0\0UL\4\0", ["application/dicom"], None)
add("a.glb", b"glTF\2\0\0\0\x14\0\0\0\0\0\0\0JSON", ["model/gltf-binary"], "model/gltf-binary")
add("a.stl", b"solid is how many begin" + b"\0" * 61 + b"\1\0\0\0" + b"\0" * 50, ["model/stl", "application/vnd.ms-pki.stl", "application/sla"], None)
add("a.torrent", b"d8:announce3:xyz4:infod6:lengthi1eee", ["application/x-bittorrent"], None)
add("a.wasm", b"\0asm\1\0\0\0", ["application/wasm"], "application/wasm")

# Fonts, as this machine has them or as they begin.
add("a.woff", b"wOFF\0\1\0\0" + b"\0" * 36, ["font/woff", "application/font-woff", "application/x-font-woff"], "font/woff")
add("a.woff2", b"wOF2\0\1\0\0" + b"\0" * 40, ["font/woff2", "application/font-woff2"], "font/woff2")
add("a.ttf", b"\0\1\0\0\0\1\0\x10\0\0\0\0cmap" + b"\0" * 12, ["font/ttf", "application/x-font-ttf", "font/sfnt", "application/font-sfnt"], "font/ttf")
add("a.otf", b"OTTO\0\1\0\x10\0\0\0\0CFF " + b"\0" * 12, ["font/otf", "application/vnd.ms-opentype", "application/x-font-opentype"], "font/otf")

# Texts, some of which begin as others do.
for name, text, declared, found in (
    ("bmi.csv", "BMI,age\n22,40\n", ["text/csv", "application/vnd.ms-excel", "text/plain", "application/csv"], "text/csv"),
    ("routes.csv", "MZ,RT\n1,2\n", ["text/csv", "application/vnd.ms-excel"], "text/csv"),
    ("README.md", "<p align=\"center\">\n  <img src=\"logo.png\">\n</p>\n", ["text/markdown", "text/x-markdown", "text/plain"], "text/markdown"),
    ("run.py", "#!/usr/bin/env python3\nprint('hello')\n", ["text/x-python", "text/x-script.python", "text/plain"], "text/x-python"),
    ("gif.txt", "GIF or JPEG, that is the question.\n", ["text/plain"], "text/plain"),
    ("tags.txt", "ID3 tags are at the beginning.\n", ["text/plain"], "text/plain"),
    ("pk.txt", "PK\n1\n", ["text/plain"], "text/plain"),
    ("a.json", '{"a": 1}', ["application/json", "text/json"], "application/json"),
    ("a.xml", "<?xml version='1.0'?><a/>", ["text/xml", "application/xml"], None),
    ("a.html", "<!DOCTYPE html><title>a</title>", ["text/html"], "text/html"),
    ("a.css", "a { b: c }", ["text/css"], "text/css"),
    ("a.js", "export default 1;", ["text/javascript", "application/javascript", "application/x-javascript"], "text/javascript"),
    ("a.ts", "export const a: number = 1;", ["video/mp2t", "text/x-typescript", "application/typescript"], "text/x-typescript"),
    ("a.sh", "#!/bin/sh\necho hello\n", ["application/x-sh", "text/x-shellscript", "application/x-shellscript"], None),
    ("a.yaml", "a: 1\n", ["application/yaml", "text/yaml", "application/x-yaml"], None),
    ("a.ics", "BEGIN:VCALENDAR\r\nEND:VCALENDAR\r\n", ["text/calendar"], "text/calendar"),
    ("a.vcf", "BEGIN:VCARD\r\nEND:VCARD\r\n", ["text/vcard", "text/x-vcard"], None),
    ("a.kml", "<?xml version='1.0'?><kml/>", ["application/vnd.google-earth.kml+xml"], "application/vnd.google-earth.kml+xml"),
    ("a.vtt", "WEBVTT\n\n00:00.000 --> 00:01.000\nhello\n", ["text/vtt"], "text/vtt"),
    ("a.eml", "From: a@b\nTo: c@d\n\nhello\n", ["message/rfc822"], "message/rfc822"),
    ("umlaut.csv", "Gr\u00fc\u00dfe;BM\n".encode("latin-1"), ["text/csv", "application/vnd.ms-excel"], "text/csv"),
    ("utf16.csv", "MZ;\u00fc\n".encode("utf-16"), ["text/csv", "application/vnd.ms-excel"], "text/csv"),
    ("unicode.txt", "\u041f\u0440\u0438\u0432\u0435\u0442\n" * 2000, ["text/plain"], "text/plain"),
):
    add(name, text, declared, found)

# Programs, of which this machine has some.
with open(os.path.realpath(sys.executable), "rb") as file:
    add("program", file.read(65536), ["application/x-executable", "application/x-pie-executable", "application/x-sharedlib"], "application/x-executable")
add("setup.exe", b"MZ\x90\0\3\0\0\0\4\0\0\0\xff\xff\0\0\xb8" + b"\0" * 43 + b"\x80\0\0\0" + b"\0" * 64 + b"PE\0\0\x64\x86", ["application/x-msdownload", "application/x-dosexec", "application/vnd.microsoft.portable-executable", "application/x-msdos-program"], None)
add("A.class", b"\xca\xfe\xba\xbe\0\0\0\x41\0\x10" + b"\7" * 16, ["application/java-vm", "application/x-java-class"], None)

json.dump(made, sys.stdout)
